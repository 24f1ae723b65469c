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

use super::address::GuestAddress;
use super::error::{GuestError, NotOwnSocket};
use crate::shim::vsock::{self, HandshakeError};
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
pub(super) struct SocketDirectories {
    /// Those of [`ROOTS`]. They may be links.
    pub roots: [PathBuf; 2],
    /// [`USERS`].
    pub users: PathBuf,
}

impl Default for SocketDirectories {
    fn default() -> Self {
        Self {
            roots: ROOTS.map(PathBuf::from),
            users: PathBuf::from(USERS),
        }
    }
}

impl SocketDirectories {
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
pub(crate) struct GuestSockets {
    pub(super) directories: SocketDirectories,
}

impl ConnectGuest for GuestSockets {
    fn connect<'a>(&'a self, address: &'a GuestAddress, sandbox: &'a str) -> ConnectingGuest<'a> {
        Box::pin(connect(address, sandbox, &self.directories))
    }
}

async fn connect(
    address: &GuestAddress,
    sandbox: &str,
    directories: &SocketDirectories,
) -> Result<Connection, GuestError> {
    let failed = |source| GuestError::Connect {
        address: address.clone(),
        source,
    };
    match address {
        GuestAddress::Vsock { cid, port } => {
            vsock::connect(*cid, *port).await.map(connection).map_err(failed)
        }
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
    directories: &SocketDirectories,
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

/// Has the hypervisor connect us to a port of its guest.
async fn handshake(stream: &mut Connection, address: &GuestAddress, port: u32) -> Result<(), GuestError> {
    let address = || address.clone();
    vsock::handshake(stream, port).await.map_err(|error| match error {
        HandshakeError::Closed => GuestError::Closed { address: address() },
        HandshakeError::Io(source) => GuestError::Io {
            address: address(),
            source,
        },
        HandshakeError::Answer(answer) => GuestError::Handshake {
            address: address(),
            answer,
        },
    })
}

#[cfg(test)]
mod tests;
