//! What stands between a connection and its answer, as the server and the web config file both know it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Event;
use crate::listen::Stream;

pub(crate) type Events = Arc<dyn Fn(Event) + Send + Sync>;

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "web-config"), allow(dead_code))]
pub(crate) enum Refusal {
    /// No password, or a wrong one.
    Unauthorized,
    /// The rate limit is reached.
    TooManyRequests,
    /// Too many passwords are waiting to be checked.
    Busy,
    /// The web config file cannot be used any more.
    Broken,
}

/// A certificate and what goes with it, for TLS without a web config file. Both files are read again when they change.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificates in PEM: the server's first.
    pub cert_file: PathBuf,
    /// The private key of the server's certificate, in PEM.
    pub key_file: PathBuf,
    /// Whether TLS 1.2 is refused.
    pub tls13_only: bool,
    /// The suites of TLS 1.2 that are offered, by their IANA names; empty: all that are known.
    pub cipher_suites: Vec<String>,
}

/// Where TLS and the rest are configured.
#[cfg_attr(not(feature = "web-config"), allow(dead_code))]
pub(crate) enum WebConfigSource {
    File(PathBuf),
    Tls(TlsFiles),
}

/// What becomes of a connection before its first request.
#[cfg_attr(not(feature = "web-config"), allow(dead_code))]
pub(crate) enum Handshake {
    Done {
        stream: Stream,
        http2: bool,
    },
    Refused(String),
    /// There is nobody to serve, and nothing to say.
    Gone,
}
