//! The address to listen on.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Who may connect to a unix socket: root, and the group that an administrator gives it to.
const SOCKET_MODE: u32 = 0o660;

/// Where to listen, as `--listen-address` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// `host:port`; without a host, every address of the machine.
    Tcp(String),
    /// `unix:///path`.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(text) => f.write_str(text),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl ListenAddress {
    /// Reads what the command line says. Whether a host has an address is found out when it is bound.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err("a unix socket is named by an absolute path: unix:///run/kata-runtime.sock".to_string())
            };
        }
        let port = text.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        match port {
            Some(Ok(_)) => Ok(Self::Tcp(text.to_string())),
            _ => Err("neither host:port nor unix:///path".to_string()),
        }
    }
}

/// A socket that is listened on. A unix socket's file goes with it.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl Listener {
    /// Begins to listen. Needs the runtime.
    pub fn bind(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(text) => bind_tcp(text).map(Self::Tcp),
            ListenAddress::Unix(path) => {
                let (listener, file) = bind_unix(path)?;
                Ok(Self::Unix(listener, file))
            }
        }
    }

    pub async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Answers are written whole; waiting to fill a packet would only delay their ends.
                let _ = stream.set_nodelay(true);
                Ok(Socket::Tcp(stream))
            }
            Self::Unix(listener, _) => Ok(Socket::Unix(listener.accept().await?.0)),
        }
    }

    /// Where it listens in the end, for people: `127.0.0.1:8090`, `unix:///run/x.sock`.
    pub fn place(&self) -> String {
        match self {
            Self::Tcp(listener) => listener
                .local_addr()
                .map_or_else(|e| e.to_string(), |a| a.to_string()),
            Self::Unix(_, file) => format!("unix://{}", file.path.display()),
        }
    }

    /// Whether others than this machine can connect.
    pub fn is_public(&self) -> bool {
        match self {
            Self::Tcp(listener) => !listener
                .local_addr()
                .is_ok_and(|a| a.ip().to_canonical().is_loopback()),
            Self::Unix(..) => false,
        }
    }
}

fn bind_tcp(text: &str) -> io::Result<TcpListener> {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let addresses: Vec<SocketAddr> = if host.is_empty() {
        // The IPv6 wildcard takes IPv4 as well; where there is no IPv6, IPv4's own.
        [format!("[::]:{port}"), format!("0.0.0.0:{port}")]
            .iter()
            .filter_map(|address| address.parse().ok())
            .collect()
    } else {
        text.to_socket_addrs()?.collect()
    };
    let mut result = Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
    for address in addresses {
        result = std::net::TcpListener::bind(address);
        if result.is_ok() {
            break;
        }
    }
    let listener = result?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
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

fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
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
    listener.set_nonblocking(true)?;
    Ok((UnixListener::from_std(listener)?, file))
}

/// Whether what is at the path is the socket of a program that has ended without removing it.
fn is_stale(path: &Path) -> io::Result<bool> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file of that name that is no socket",
        ));
    }
    Ok(std::os::unix::net::UnixStream::connect(path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

/// A client's connection.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets hold nothing back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    fn bind(text: &str) -> io::Result<Listener> {
        block_on(async { Listener::bind(&ListenAddress::parse(text).unwrap()) })
    }

    #[test]
    fn reads_what_go_programs_take_and_unix_sockets() {
        for text in [
            "127.0.0.1:8090",
            ":8090",
            "[::1]:0",
            "localhost:8090",
            "0.0.0.0:1",
        ] {
            assert_eq!(ListenAddress::parse(text), Ok(ListenAddress::Tcp(text.into())));
        }
        assert_eq!(
            ListenAddress::parse("unix:///run/x.sock"),
            Ok(ListenAddress::Unix("/run/x.sock".into()))
        );
        for text in [
            "",
            "8090",
            "host",
            "host:",
            "host:http",
            "host:65536",
            "unix://",
            "unix://x",
            "unix:/x",
        ] {
            assert!(ListenAddress::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn tells_what_others_can_reach() {
        assert!(!bind("127.0.0.1:0").unwrap().is_public());
        assert!(!bind("localhost:0").unwrap().is_public());
        assert!(bind("0.0.0.0:0").unwrap().is_public());
        assert!(bind(":0").unwrap().is_public());
        let taken = bind("127.0.0.1:0").unwrap();
        assert_eq!(bind(&taken.place()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_sockets_file_is_roots_and_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let text = format!("unix://{}", path.display());
        let listener = bind(&text).unwrap();
        assert_eq!(listener.place(), text);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(!listener.is_public());
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_sockets_file_is_replaced_and_nothing_else_is() {
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
        assert!(bind(&text).unwrap_err().to_string().contains("no socket"));
        assert_eq!(fs::read(&path).unwrap(), b"a file");
    }
}
