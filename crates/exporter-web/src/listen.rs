//! Sockets that are listened on.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, ready};

use listenfd::ListenFd;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use crate::address::{Kind, ListenAddress, resolve};
use crate::error::SystemdError;

/// Who may connect to a unix socket: root, and the group that an administrator gives it to.
const SOCKET_MODE: u32 = 0o660;

/// A client's connection. Of one type, so that what serves it is compiled once.
pub type Stream = Box<dyn AnyStream>;

pub trait AnyStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> AnyStream for S {}

/// A socket that is listened on.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// The socket's file goes with it, if this program has made it.
        _file: Option<SocketFile>,
    },
}

impl Listener {
    /// Needs the runtime.
    pub fn bind(address: &ListenAddress) -> io::Result<Self> {
        match &address.0 {
            // The standard library tries one address after the other.
            Kind::Tcp { host, port } => {
                Self::from_tcp(std::net::TcpListener::bind(&resolve(host, *port)?[..])?)
            }
            Kind::Unix(path) => bind_unix(path),
        }
    }

    /// The sockets that systemd passes to a service that it activates (sd_listen_fds(3)).
    pub fn from_systemd() -> Result<Vec<Self>, SystemdError> {
        let mut passed = ListenFd::from_env();
        let mut listeners = Vec::new();
        for index in 0..passed.len() {
            let listener = match passed.take_tcp_listener(index) {
                Ok(Some(listener)) => Self::from_tcp(listener),
                _ => match passed.take_unix_listener(index) {
                    Ok(Some(listener)) => Self::from_unix(listener, None),
                    Ok(None) => continue,
                    Err(error) => Err(error),
                },
            };
            listeners.push(listener.map_err(|source| SystemdError::NotAListener {
                // The standard streams come before systemd's.
                descriptor: index + 3,
                source,
            })?);
        }
        match listeners.is_empty() {
            true => Err(SystemdError::NoSockets),
            false => Ok(listeners),
        }
    }

    fn from_tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::Tcp(TcpListener::from_std(listener)?))
    }

    fn from_unix(listener: std::os::unix::net::UnixListener, file: Option<SocketFile>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::Unix {
            listener: UnixListener::from_std(listener)?,
            _file: file,
        })
    }

    /// The next client, and its address.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, String)>> {
        Poll::Ready(Ok(match self {
            Self::Tcp(listener) => {
                let (stream, peer) = ready!(listener.poll_accept(cx))?;
                // Answers are written whole; waiting to fill a packet would only delay their ends.
                let _ = stream.set_nodelay(true);
                (Box::new(stream), peer.to_string())
            }
            Self::Unix { listener, .. } => {
                let (stream, _) = ready!(listener.poll_accept(cx))?;
                (Box::new(stream), "a unix socket".to_string())
            }
        }))
    }

    /// Where it listens: `127.0.0.1:8090`, `unix:///run/x.sock`.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener
                .local_addr()
                .map_or_else(|e| e.to_string(), |a| a.to_string()),
            Self::Unix { listener, .. } => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                path.map_or_else(
                    || "a unix socket".to_string(),
                    |path| format!("unix://{}", path.display()),
                )
            }
        }
    }

    /// Whether other machines can connect.
    pub fn is_public(&self) -> bool {
        match self {
            Self::Tcp(listener) => !listener
                .local_addr()
                .is_ok_and(|a| a.ip().to_canonical().is_loopback()),
            Self::Unix { .. } => false,
        }
    }
}

/// Listeners that are accepted from in turn: a flood on one keeps out nobody who comes by another.
pub struct Listeners {
    all: Vec<Listener>,
    next: usize,
}

impl Listeners {
    pub fn new(all: Vec<Listener>) -> Self {
        Self { all, next: 0 }
    }

    /// The next client of any of them, and its address.
    pub async fn accept(&mut self) -> io::Result<(Stream, String)> {
        std::future::poll_fn(|cx| {
            let (first, last) = self.all.split_at(self.next % self.all.len().max(1));
            let mut in_turn = last.iter().chain(first).enumerate();
            let accepted = in_turn.find_map(|(after, listener)| match listener.poll_accept(cx) {
                Poll::Ready(accepted) => Some((after, accepted)),
                Poll::Pending => None,
            });
            let Some((after, accepted)) = accepted else {
                return Poll::Pending;
            };
            self.next = (self.next + after + 1) % self.all.len().max(1);
            Poll::Ready(accepted)
        })
        .await
    }
}

/// The file of a unix socket, removed in the end where it is still ours.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    let listener = match std::os::unix::net::UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path)? => {
            fs::remove_file(path)?;
            std::os::unix::net::UnixListener::bind(path)?
        }
        listener => listener?,
    };
    let file = SocketFile {
        path: path.to_path_buf(),
        identity: identity(path),
    };
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    Listener::from_unix(listener, Some(file))
}

/// Whether a path is the socket of a program that has ended without removing it.
fn is_stale(path: &Path) -> io::Result<bool> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        let reason = "a file of this name exists and is not a socket";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, reason));
    }
    Ok(std::os::unix::net::UnixStream::connect(path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(text: &str) -> io::Result<Listener> {
        Listener::bind(&text.parse().unwrap())
    }

    #[tokio::test]
    async fn other_machines_reach_all_but_loopback_and_unix_sockets() {
        assert!(!bind("127.0.0.1:0").unwrap().is_public());
        assert!(!bind("localhost:0").unwrap().is_public());
        assert!(bind("0.0.0.0:0").unwrap().is_public());
        assert!(bind(":0").unwrap().is_public());
        let taken = bind("127.0.0.1:0").unwrap();
        assert_eq!(
            bind(&taken.address()).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        assert_eq!(
            bind("no.such.host.example:0").unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[tokio::test]
    async fn a_socket_is_roots_and_its_file_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let text = format!("unix://{}", path.display());
        let listener = bind(&text).unwrap();
        assert_eq!(listener.address(), text);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(!listener.is_public());
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_dead_sockets_file_is_replaced_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let text = format!("unix://{}", path.display());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = bind(&text).unwrap();
        let in_use = bind(&text).unwrap_err();
        assert_eq!(in_use.kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
        // Somebody else's by now: left alone.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        drop(listener);
        assert_eq!(fs::read(&path).unwrap(), b"a file");
        assert!(bind(&text).unwrap_err().to_string().contains("not a socket"));
        assert_eq!(fs::read(&path).unwrap(), b"a file");
    }

    #[tokio::test]
    async fn every_listener_is_accepted_from_in_turn() {
        let all = vec![bind("127.0.0.1:0").unwrap(), bind("127.0.0.1:0").unwrap()];
        let addresses = [all[0].address(), all[1].address()];
        let mut listeners = Listeners::new(all);
        // Two clients wait at the first, one at the second.
        let mut clients = Vec::new();
        for place in [0, 0, 1] {
            clients.push(tokio::net::TcpStream::connect(&addresses[place]).await.unwrap());
        }
        let mut accepted = Vec::new();
        for _ in 0..3 {
            accepted.push(listeners.accept().await.unwrap().1);
        }
        let expected = [&clients[0], &clients[2], &clients[1]];
        assert_eq!(
            accepted,
            expected.map(|client| client.local_addr().unwrap().to_string())
        );
    }
}
