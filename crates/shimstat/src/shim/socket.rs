//! Connecting to a unix socket without ever blocking the thread.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixStream;

use super::address::Address;
use super::error::ShimError;
use super::vsock::{self, HandshakeError};

/// How long to wait before trying again where a socket's backlog is full. The kernel does not notify.
const BACKLOG_RETRY: Duration = Duration::from_millis(20);

/// The longest path that a socket address has room for: `sun_path` less its closing NUL (see unix(7)).
const PATH_LIMIT: usize = 107;

/// Connects. Waits as long as the other side's backlog is full, so put a deadline around it.
pub async fn connect(address: &Address) -> Result<UnixStream, ShimError> {
    let failed = |source| ShimError::Connect {
        address: address.clone(),
        source,
    };
    match address {
        Address::Path(path) => connect_any_path(path).await.map_err(failed),
        Address::Abstract(name) => {
            // The spelling of an abstract name that tokio understands.
            let path = PathBuf::from(OsString::from_vec([b"\0", name.as_slice()].concat()));
            connect_path(&path).await.map_err(failed)
        }
        Address::Vsock { cid, port } => vsock::connect(*cid, *port).await.map_err(failed),
        Address::Hybrid { socket, port } => {
            let mut stream = connect_any_path(socket).await.map_err(failed)?;
            vsock::handshake(&mut stream, *port)
                .await
                .map_err(|error| match error {
                    HandshakeError::Closed => ShimError::Closed {
                        address: address.clone(),
                    },
                    HandshakeError::Io(source) => ShimError::Io {
                        address: address.clone(),
                        source,
                    },
                    answer @ HandshakeError::Answer(_) => ShimError::Malformed {
                        address: address.clone(),
                        reason: answer.to_string(),
                    },
                })?;
            Ok(stream)
        }
    }
}

/// Connects to a path of any length.
async fn connect_any_path(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().as_bytes().len() <= PATH_LIMIT {
        return connect_path(path).await;
    }
    // Kept open until the connection is made.
    let file = open_socket_file(path)?;
    connect_path(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd()))).await
}

/// Connects to a path that a socket address has room for. Waits as long as the other side's backlog is full.
pub(crate) async fn connect_path(path: &Path) -> io::Result<UnixStream> {
    loop {
        match connect_now(path) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(BACKLOG_RETRY).await
            }
            done => return done,
        }
    }
}

/// Opens a socket file as a place in the file system, which neither connects nor waits.
pub(crate) fn open_socket_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)
}

/// A connect to a unix socket is done or refused at once. tokio's own waits for the next round of its event loop all
/// the same, and by then the other side has been woken for a connection with nothing to read on it.
fn connect_now(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    UnixStream::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream as StdStream};

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn connects_to_a_path_and_to_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        assert!(block_on(connect(&Address::Path(path))).is_ok());

        let name = format!("kata-runtime-test-{}", std::process::id());
        let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        assert!(block_on(connect(&Address::Abstract(name.into_bytes()))).is_ok());
    }

    #[test]
    fn a_hybrid_socket_leads_to_a_port_of_its_guest() {
        use std::io::{Read, Write};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("task.vsock");
        let listener = UnixListener::bind(&path).unwrap();
        let address = |port| Address::Hybrid {
            socket: path.clone(),
            port,
        };
        let hypervisor = std::thread::spawn(move || {
            for answer in ["OK 1073741824\n", "", "what?\n"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut asked = [0; 13];
                stream.read_exact(&mut asked).unwrap();
                assert_eq!(&asked, b"CONNECT 1024\n");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        assert!(block_on(connect(&address(1024))).is_ok());
        assert!(matches!(
            block_on(connect(&address(1024))),
            Err(ShimError::Closed { .. })
        ));
        assert!(matches!(
            block_on(connect(&address(1024))),
            Err(ShimError::Malformed { .. })
        ));
        hypervisor.join().unwrap();
        assert!(block_on(connect(&address(1024))).unwrap_err().is_gone());
    }

    #[test]
    fn tells_a_dead_socket_from_a_missing_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let missing = block_on(connect(&Address::Path(path.clone()))).unwrap_err();
        assert_eq!(
            missing.to_string(),
            format!("connect to {}: no such file or directory", path.display())
        );
        drop(UnixListener::bind(&path).unwrap());
        let dead = block_on(connect(&Address::Path(path.clone()))).unwrap_err();
        assert_eq!(
            dead.to_string(),
            format!("connect to {}: connection refused", path.display())
        );
        assert!(missing.is_gone() && dead.is_gone());
    }

    #[test]
    fn a_path_may_be_longer_than_a_socket_address() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        // Bound under a short name, as a sandbox's may be by way of /proc/self/fd.
        let short = dir.path().join("s");
        let listener = UnixListener::bind(&short).unwrap();
        let path = deep.join("s");
        std::fs::rename(&short, &path).unwrap();
        assert!(block_on(connect(&Address::Path(path.clone()))).is_ok());
        drop(listener);
        let dead = block_on(connect(&Address::Path(path.clone()))).unwrap_err();
        assert_eq!(
            dead.to_string(),
            format!("connect to {}: connection refused", path.display())
        );
        std::fs::remove_file(&path).unwrap();
        let missing = block_on(connect(&Address::Path(path))).unwrap_err();
        assert!(missing.is_gone() && dead.is_gone());
    }

    #[test]
    fn the_longest_path_that_fits_is_connected_to_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let room = PATH_LIMIT - dir.path().as_os_str().len() - 1;
        for (length, fits) in [(room, true), (room + 1, false)] {
            let path = dir.path().join("x".repeat(length));
            assert_eq!(SockAddr::unix(&path).is_ok(), fits);
            std::fs::write(&path, "").unwrap();
            // A regular file: no connection, either way.
            let error = block_on(connect(&Address::Path(path))).unwrap_err();
            assert!(error.is_gone(), "{error}");
        }
    }

    #[test]
    fn a_full_backlog_is_waited_for_and_can_be_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        // Fill the backlog with connects that nobody accepts.
        let mut waiting = Vec::new();
        loop {
            let socket = block_on(async {
                tokio::time::timeout(Duration::from_millis(200), connect(&Address::Path(path.clone()))).await
            });
            match socket {
                Ok(stream) => waiting.push(stream.unwrap().into_std().unwrap()),
                Err(_elapsed) => break,
            }
            assert!(waiting.len() < 10_000, "the backlog never fills");
        }
        let acceptor = std::thread::spawn(move || {
            let accepted: StdStream = listener.accept().unwrap().0;
            (listener, accepted)
        });
        let connected = block_on(async {
            tokio::time::timeout(Duration::from_secs(10), connect(&Address::Path(path.clone()))).await
        });
        assert!(connected.is_ok_and(|c| c.is_ok()), "one place has become free");
        drop(acceptor.join().unwrap());
    }
}
