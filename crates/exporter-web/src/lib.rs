//! The HTTP side of a Prometheus exporter.
//!
//! Give it a function that answers requests. It listens (TCP, unix sockets, systemd's socket activation), takes TLS,
//! HTTP/2, passwords, headers and a rate limit from the `web.config.file` that Prometheus's own exporters have,
//! compresses, and keeps slow and hostile clients from holding descriptors or memory. What is exported is not its
//! business.
//!
//! ```
//! use exporter_web::{Request, Response, Server, StatusCode};
//!
//! async fn answer(request: Request) -> Response {
//!     match request.path() {
//!         "/metrics" => Response::metrics("# TYPE dice_rolled counter\ndice_rolled 4\n"),
//!         _ => Response::text(StatusCode::NOT_FOUND, "see /metrics\n"),
//!     }
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let server = Server::builder()
//!         .listen(["127.0.0.1:0".parse()?])
//!         .on_event(|event| eprintln!("{event}"))
//!         .bind()?;
//! #   let address = server.addresses().remove(0);
//! #   let scrape = tokio::task::spawn_blocking(move || -> std::io::Result<String> {
//! #       use std::io::{Read, Write};
//! #       let mut stream = std::net::TcpStream::connect(address)?;
//! #       stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
//! #       let mut answer = String::new();
//! #       stream.read_to_string(&mut answer)?;
//! #       Ok(answer)
//! #   });
//! #   let (scraped, stop) = tokio::sync::oneshot::channel();
//! #   tokio::spawn(async move { scraped.send(scrape.await) });
//! #   let stop = async { assert!(stop.await.unwrap().unwrap().unwrap().ends_with("dice_rolled 4\n")) };
//! #   server.run_until(answer, stop).await;
//! #   return Ok(());
//!     Ok(server.run(answer).await?)
//! }
//! ```
//!
//! # Limits
//!
//! 256 connections are open at most; where a client needs a place, the connection that has waited longest for its
//! client is closed. A client has 10 s for its first request with the TLS handshake, 120 s between requests, 10 s for
//! each 64 KiB of an answer and 120 s for all of it. A request head has at most 16 KiB and 100 headers. Answers that
//! hold much memory are bounded on their own, see [`Request::claim_large_answer`].

#![cfg_attr(not(test), warn(clippy::string_slice, clippy::unreachable))]
#![warn(missing_docs)]

mod address;
mod connections;
mod error;
mod listen;
mod protection;
mod request;
mod response;
mod server;
#[cfg_attr(not(feature = "web-config"), path = "no_web_config.rs")]
mod web_config;

/// Reads the text of a `web.config.file`, for a fuzz target.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub fn fuzz_web_config(text: &str) {
    web_config::fuzz(text);
}

pub use address::{AddressError, ListenAddress};
pub use error::{Error, Event, SystemdError, WebConfigError};
pub use hyper::StatusCode;
pub use hyper::header;
pub use protection::TlsFiles;
pub use request::Request;
pub use response::{Response, Source};
pub use server::{Builder, Server};
