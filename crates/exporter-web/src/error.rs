//! Why a server does not start, and what it has to say while it runs.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address cannot be listened on.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address, as it was given.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// Socket activation was asked for, and systemd passed nothing that can be listened on.
    #[error("--web.systemd-socket: {0}")]
    Systemd(#[from] SystemdError),
    /// There is nothing to listen on.
    #[error("no address to listen on was given")]
    NoAddress,
    /// The web config file cannot be used.
    #[error(transparent)]
    WebConfig(#[from] WebConfigError),
    /// No signal can be waited for: [`Server::run`](crate::Server::run) could not be stopped.
    #[error("wait for signals: {0}")]
    Signals(io::Error),
}

/// Why the sockets that systemd passes cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SystemdError {
    /// The environment names none.
    #[error("systemd passed no sockets (LISTEN_FDS): start the service through a .socket unit")]
    NoSockets,
    /// One of them is something else.
    #[error("descriptor {descriptor} is not a TCP or unix socket that is listened on: {source}")]
    NotAListener {
        /// The file descriptor.
        descriptor: usize,
        /// What is wrong with it.
        source: io::Error,
    },
}

/// Why a web config file cannot be used: the file, and what is wrong with it.
#[derive(Debug)]
pub struct WebConfigError {
    pub(crate) path: Option<PathBuf>,
    pub(crate) problem: Problem,
}

impl fmt::Display for WebConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "--web.config.file {}: ", path.display())?;
        }
        self.problem.fmt(f)
    }
}

impl std::error::Error for WebConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.problem)
    }
}

/// What is wrong with a web config file, or with a file that it names.
#[derive(Debug, thiserror::Error)]
#[cfg_attr(not(feature = "web-config"), allow(dead_code))]
pub(crate) enum Problem {
    #[cfg(not(feature = "web-config"))]
    #[error("this program was built without TLS and passwords (feature web-config)")]
    NotBuilt,
    #[error("{0}")]
    Read(io::Error),
    #[error("{0}")]
    Format(String),
    #[error("not a web config file, which has sections such as tls_server_config and basic_auth_users")]
    NotSections,
    /// A key whose value cannot be used.
    #[error("{key}: {reason}")]
    Key { key: &'static str, reason: String },
    #[error("basic_auth_users: {0}: the password is not hashed with bcrypt")]
    NotHashed(String),
    /// What exporter-toolkit checks across keys, in its words where it has some.
    #[error("{0}")]
    Conflict(&'static str),
    #[error("TLS can be turned on and off only by a restart")]
    TlsTurned,
    #[error("no random numbers from the system")]
    NoRandomNumbers,
}

impl Problem {
    #[cfg(feature = "web-config")]
    pub(crate) fn key(key: &'static str, reason: impl fmt::Display) -> Self {
        let reason = reason.to_string();
        Self::Key { key, reason }
    }
}

/// Something that an operator should read. Its text is a line for stderr or a log; what clients and files say is in
/// it, so escape it for a terminal.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The server listens.
    Listening {
        /// `http://127.0.0.1:9100/metrics`, or `unix:///run/exporter.sock`.
        url: String,
    },
    /// A warning: other machines can connect, and nothing asks who they are.
    Unprotected {
        /// Where.
        address: String,
    },
    /// A warning: passwords from other machines cross the network in clear text.
    ClearPasswords {
        /// Where.
        address: String,
    },
    /// A warning: the web config file asks for something that is not offered, and goes without it.
    NotOffered {
        /// The key in the file.
        key: &'static str,
        /// Its value, or one of them.
        value: String,
    },
    /// The web config file has changed, and holds from now on.
    ConfigReloaded {
        /// The file.
        path: PathBuf,
    },
    /// The web config file has changed, and cannot be used: no request is answered.
    ConfigBroken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificates have changed and cannot be used: the previous ones are.
    CertificatesKept {
        /// The web config file that names them.
        path: PathBuf,
        /// What is wrong with them.
        reason: String,
    },
    /// A TLS handshake failed. Of many in a short time, some are only counted.
    TlsRefused {
        /// The client's address.
        peer: String,
        /// Why.
        reason: String,
        /// How many were not told since the last one that was.
        more: u64,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening { url } => write!(f, "listening on {url}"),
            Self::Unprotected { address } => write!(
                f,
                "warning: other machines can connect to {address}, without TLS or a password: see --web.config.file, \
                 or listen on 127.0.0.1"
            ),
            Self::ClearPasswords { address } => write!(
                f,
                "warning: passwords that other machines send to {address} can be read on the way: set cert_file and \
                 key_file in the web config file"
            ),
            Self::NotOffered { key, value } => write!(f, "warning: {key}: {value} is not offered"),
            Self::ConfigReloaded { path } => write!(f, "{}: read again", path.display()),
            Self::ConfigBroken { path, reason } => write!(
                f,
                "{}: {reason}: no request is answered until this is corrected",
                path.display()
            ),
            Self::CertificatesKept { path, reason } => {
                write!(
                    f,
                    "{}: {reason}: the previous certificates stay in use",
                    path.display()
                )
            }
            Self::TlsRefused { peer, reason, more } => {
                write!(f, "TLS connection from {peer} refused: {reason}")?;
                match more {
                    0 => Ok(()),
                    more => write!(f, " ({more} more since the last such line)"),
                }
            }
        }
    }
}
