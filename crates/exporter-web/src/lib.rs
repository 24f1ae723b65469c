//! The HTTP side of a Prometheus exporter: listeners, limits for slow and hostile clients, `web.config.file` (TLS,
//! passwords), compression. It knows nothing of what is exported: an [`App`] answers the requests.

#![cfg_attr(not(test), warn(clippy::string_slice, clippy::unreachable))]

mod body;
mod connections;
mod listen;
mod negotiate;
mod patience;
mod protection;
mod server;
#[cfg(feature = "web-config")]
mod web_config;

pub use body::{Answer, Source};
pub use connections::Connections;
pub use listen::{ListenAddress, Listener};
pub use negotiate::{takes_gzip, takes_html};
pub use patience::{Answering, Progress};
pub use protection::{Protection, Refusal};
pub use server::{App, MOST_CONNECTIONS, serve};
