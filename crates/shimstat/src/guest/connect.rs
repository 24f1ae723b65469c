//! Connecting to a guest's agent.
//!
//! A hybrid socket's path comes from a shim's answer. It is connected to only where the sandbox's own directory is, and
//! through the very file that was looked at, so that nothing can take its place in between.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::address::GuestAddress;
use super::error::{GuestError, NotOwnSocket};
use crate::shim::{Connection, connection, socket};

/// The directories below which Kata's shims keep one for each sandbox.
///
/// | shim | hypervisor | socket |
/// |---|---|---|
/// | Go | Cloud Hypervisor | `/run/vc/vm/<id>/clh.sock`; the directory is a link to another where the VM was taken from a cache |
/// | Go | Firecracker | `/run/vc/firecracker/<first 32 characters of the id>/root/kata.hvsock` |
/// | Rust | Cloud Hypervisor, OpenVMM | `/run/kata/<id>/ch-vm.sock`, `/run/kata/<id>/vsock.sock` |
/// | Rust | Dragonball, Firecracker | `/run/kata/<id>/root/kata.hvsock`, `/run/kata/firecracker/<id>/root/kata.hvsock` |
///
/// Source: Kata 4.1.0, `src/runtime/virtcontainers/{clh,fc,vm}.go`, `src/runtime-rs/crates/hypervisor/src/`.
const ROOTS: [&str; 2] = ["/run/vc", "/run/kata"];

/// Where both are for a hypervisor that does not run as root: below its user's `XDG_RUNTIME_DIR`.
const USERS: &str = "/run/user";

/// The directories in which a sandbox's socket may be.
pub(super) struct Directories {
    /// Those of [`ROOTS`]. They may be links.
    pub roots: [PathBuf; 2],
    /// [`USERS`].
    pub users: PathBuf,
}

impl Default for Directories {
    fn default() -> Self {
        Self {
            roots: ROOTS.map(PathBuf::from),
            users: PathBuf::from(USERS),
        }
    }
}

impl Directories {
    /// `directory` has no links in it.
    fn contain(&self, directory: &Path) -> bool {
        let below = |root: &Path| {
            fs::canonicalize(root).is_ok_and(|root| directory.starts_with(&root) && directory != root)
        };
        if self.roots.iter().any(|root| below(root)) {
            return true;
        }
        let Ok(users) = fs::canonicalize(&self.users) else {
            return false;
        };
        let user = directory
            .strip_prefix(&users)
            .ok()
            .and_then(|path| path.iter().next());
        user.is_some_and(|user| {
            let user = users.join(user);
            let of_user = |root: &PathBuf| Some(user.join(root.strip_prefix("/").ok()?));
            self.roots.iter().filter_map(of_user).any(|root| below(&root))
        })
    }
}

/// How much of a sandbox's id Firecracker's directory is named by (`fc.go`: `truncateID`).
const FIRECRACKER_ID: usize = 32;

/// The most bytes to read of the answer to `CONNECT`. `OK`, a number of 32 bits and the end of the line are 14.
const HANDSHAKE: usize = 64;

/// What [`ConnectGuest::connect`] returns.
pub type ConnectingGuest<'a> = Pin<Box<dyn Future<Output = Result<Connection, GuestError>> + Send + 'a>>;

/// Makes connections to guests' agents. Tests and simulations bring their own.
pub trait ConnectGuest: Send + Sync {
    /// Connects to the agent of a sandbox, as far as the guest: after that, ttrpc can be spoken. Put a deadline around
    /// it.
    fn connect<'a>(&'a self, address: &'a GuestAddress, sandbox: &'a str) -> ConnectingGuest<'a>;
}

/// Connects to this machine's guests.
#[derive(Default)]
pub struct GuestSockets {
    pub(super) directories: Directories,
}

impl ConnectGuest for GuestSockets {
    fn connect<'a>(&'a self, address: &'a GuestAddress, sandbox: &'a str) -> ConnectingGuest<'a> {
        Box::pin(connect(address, sandbox, &self.directories))
    }
}

async fn connect(
    address: &GuestAddress,
    sandbox: &str,
    directories: &Directories,
) -> Result<Connection, GuestError> {
    let failed = |source| GuestError::Connect {
        address: address.clone(),
        source,
    };
    match address {
        GuestAddress::Vsock { cid, port } => vsock(*cid, *port).await.map(connection).map_err(failed),
        GuestAddress::Hybrid { socket: path, port } => {
            let refused = |reason| GuestError::NotOwnSocket {
                address: address.clone(),
                reason,
            };
            let file = own_socket(path, sandbox, directories)
                .map_err(failed)?
                .map_err(refused)?;
            let link = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
            let mut stream = connection(socket::connect_path(&link).await.map_err(failed)?);
            handshake(&mut stream, address, *port).await?;
            Ok(stream)
        }
    }
}

/// Opens a socket without connecting to it, and checks that it is in the sandbox's own directory.
fn own_socket(
    path: &Path,
    sandbox: &str,
    directories: &Directories,
) -> io::Result<Result<File, NotOwnSocket>> {
    let Some(directory) = own_directory(path, sandbox) else {
        return Ok(Err(NotOwnSocket::NoDirectory {
            id: sandbox.to_owned(),
        }));
    };
    let directory = fs::canonicalize(directory)?;
    if !directories.contain(&directory) {
        return Ok(Err(NotOwnSocket::OtherRoot { directory }));
    }
    let file = socket::open_socket_file(path)?;
    let real = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    if !real.starts_with(&directory) {
        return Ok(Err(NotOwnSocket::Outside {
            path: real,
            directory,
        }));
    }
    if !file.metadata()?.file_type().is_socket() {
        return Ok(Err(NotOwnSocket::NoSocket));
    }
    Ok(Ok(file))
}

/// The deepest directory on a path that is named by the sandbox's id.
fn own_directory<'a>(path: &'a Path, sandbox: &str) -> Option<&'a Path> {
    let short = sandbox.get(..FIRECRACKER_ID).unwrap_or(sandbox);
    path.parent()?.ancestors().find(|directory| {
        directory
            .file_name()
            .is_some_and(|name| name == sandbox || name == short)
    })
}

/// Has the hypervisor connect us to a port of its guest: `CONNECT <port>`, then `OK <a port of the host>`.
///
/// Source: Firecracker's and Cloud Hypervisor's `docs/vsock.md`; Kata's `HybridVSockDialer`.
async fn handshake(stream: &mut Connection, address: &GuestAddress, port: u32) -> Result<(), GuestError> {
    let failed = |source: io::Error| match source.kind() {
        // A hypervisor whose guest does not listen at that port closes the connection.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            GuestError::Closed {
                address: address.clone(),
            }
        }
        _ => GuestError::Io {
            address: address.clone(),
            source,
        },
    };
    let request = format!("CONNECT {port}\n");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::with_capacity(HANDSHAKE);
    // Byte by byte: what comes after the line belongs to ttrpc.
    loop {
        let byte = stream.read_u8().await.map_err(failed)?;
        if byte == b'\n' && answer.starts_with(b"OK ") {
            return Ok(());
        }
        answer.push(byte);
        if byte == b'\n' || answer.len() >= HANDSHAKE {
            return Err(GuestError::Handshake {
                address: address.clone(),
                answer: String::from_utf8_lossy(&answer).into_owned(),
            });
        }
    }
}

/// Connects to a port of a virtual machine. The kernel gives up after two seconds.
async fn vsock(cid: u32, port: u32) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::VSOCK, Type::STREAM.nonblocking(), None)?;
    match socket.connect(&SockAddr::vsock(cid, port)) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    let stream = UnixStream::from_std(socket.into())?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

#[cfg(test)]
mod tests;
