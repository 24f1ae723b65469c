//! The address to listen on.

use std::fmt;
use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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
    } else if let Ok(address) = text.parse() {
        vec![address]
    } else {
        let port = port.parse().unwrap_or_default();
        let addresses = addresses_of(host)?.into_iter();
        addresses.map(|address| SocketAddr::new(address, port)).collect()
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

/// The addresses of a name that the machine itself knows. No resolver is asked: an exporter must not wait for one to
/// start.
fn addresses_of(host: &str) -> io::Result<Vec<IpAddr>> {
    if host == "localhost" {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let mut text = String::new();
    fs::File::open(HOSTS)?
        .take(HOSTS_LIMIT)
        .read_to_string(&mut text)?;
    let found = in_hosts(&text, host);
    if found.is_empty() {
        let reason = format!("{host} is neither an address nor a name in {HOSTS}");
        return Err(io::Error::new(io::ErrorKind::NotFound, reason));
    }
    Ok(found)
}

const HOSTS: &str = "/etc/hosts";

const HOSTS_LIMIT: u64 = 1 << 20;

/// The addresses that a name has in the text of `/etc/hosts`.
fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let entry = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words
            .any(|word| word.eq_ignore_ascii_case(name))
            .then_some(address)
    };
    text.lines().filter_map(entry).collect()
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

    #[test]
    fn a_name_is_one_that_the_machine_knows() {
        let hosts =
            "127.0.0.1 localhost\n10.0.0.1\tnode-1 node-1.example # node-2\n::1 ip6 Node-1\n\nx node-3\n";
        let addresses = |name| {
            let found = in_hosts(hosts, name).into_iter();
            found.map(|address| address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(addresses("node-1"), ["10.0.0.1", "::1"]);
        assert_eq!(addresses("NODE-1.EXAMPLE"), ["10.0.0.1"]);
        for nobody in ["node-2", "node-3", "node", "10.0.0.1", ""] {
            assert!(addresses(nobody).is_empty(), "{nobody}");
        }
        assert!(bind("localhost:0").is_ok());
        let error = bind("no.such.host.example:0").err().unwrap().to_string();
        assert_eq!(
            error,
            "no.such.host.example is neither an address nor a name in /etc/hosts"
        );
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
