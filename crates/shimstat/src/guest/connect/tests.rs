use super::*;
use crate::guest::AgentConnection;
use crate::guest::testing::block_on;
use socket2::{Domain, SockAddr, Socket, Type};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use tokio::time::timeout;

const ID: &str = "6d2b11d1e0b54b1ea3a5c3d7ab0f6cf60c9ac1f5e7a94a9c9d1f7b2f1a7be001";

/// A machine's /run, with Kata's directories in it.
struct Run {
    dir: tempfile::TempDir,
    sockets: Vec<UnixListener>,
}

impl Run {
    fn new() -> Self {
        let run = Self {
            dir: tempfile::tempdir().unwrap(),
            sockets: Vec::new(),
        };
        for root in ["run/vc", "run/kata", "run/user"] {
            fs::create_dir_all(run.path(root)).unwrap();
        }
        run
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.replace("ID", ID))
    }

    /// Makes a socket with all directories to it.
    fn socket(&mut self, path: &str) {
        let path = self.path(path);
        let directory = path.parent().unwrap();
        fs::create_dir_all(directory).unwrap();
        // A path of any length, by way of a short one.
        let short = self.dir.path().join("s");
        self.sockets.push(UnixListener::bind(&short).unwrap());
        fs::rename(&short, &path).unwrap();
    }

    fn link(&self, target: &str, link: &str) {
        let link = self.path(link);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(self.path(target), link).unwrap();
    }

    fn directories(&self) -> SocketDirectories {
        SocketDirectories {
            roots: [self.path("run/vc"), self.path("run/kata")],
            users: self.path("run/user"),
        }
    }

    fn open(&self, path: &str) -> io::Result<Result<File, NotOwnSocket>> {
        own_socket(&self.path(path), ID, &self.directories())
    }
}

#[test]
fn sockets_where_katas_shims_have_them_are_the_sandboxs_own() {
    let mut run = Run::new();
    for path in [
        "run/vc/vm/ID/clh.sock",
        "run/vc/firecracker/6d2b11d1e0b54b1ea3a5c3d7ab0f6cf6/root/kata.hvsock",
        "run/kata/ID/ch-vm.sock",
        "run/kata/ID/root/kata.hvsock",
        "run/kata/firecracker/ID/root/kata.hvsock",
    ] {
        run.socket(path);
        assert!(matches!(run.open(path), Ok(Ok(_))), "{path}");
    }
    // /var/run is a link to /run.
    run.link("run", "var/run");
    assert!(matches!(run.open("var/run/kata/ID/ch-vm.sock"), Ok(Ok(_))));
    assert!(matches!(run.open("run/kata/./ID//ch-vm.sock"), Ok(Ok(_))));
    // A hypervisor that does not run as root. (The roots are below the test's directory, so their paths repeat it.)
    let user = format!("run/user/1000{}", run.path("run/kata").display());
    run.socket(&format!("{user}/ID/kata.hvsock"));
    assert!(matches!(run.open(&format!("{user}/ID/kata.hvsock")), Ok(Ok(_))));
}

#[test]
fn a_sandboxs_directory_may_be_a_link_to_its_machines() {
    let mut run = Run::new();
    // vm.go, assignSandbox(): a machine from a cache.
    run.socket("run/vc/vm/machine/clh.sock");
    run.link("run/vc/vm/machine", "run/vc/vm/ID");
    assert!(matches!(run.open("run/vc/vm/ID/clh.sock"), Ok(Ok(_))));
    // Not to anywhere, though.
    run.socket("elsewhere/clh.sock");
    run.link("elsewhere", "run/kata/ID");
    assert!(matches!(
        run.open("run/kata/ID/clh.sock"),
        Ok(Err(NotOwnSocket::OtherRoot { .. }))
    ));
}

#[test]
fn sockets_elsewhere_are_not() {
    let mut run = Run::new();
    run.socket("run/containerd/containerd.sock");
    run.socket("run/kata/other/ch-vm.sock");
    run.socket("run/kata/ID/ch-vm.sock");
    run.socket("tmp/ID/ch-vm.sock");
    run.socket("run/user/1000/tmp/ID/ch-vm.sock");
    run.link("run/containerd/containerd.sock", "run/kata/ID/daemon");
    run.link("run/kata/other", "run/kata/ID/other");
    for path in [
        "run/containerd/containerd.sock",
        "run/kata/other/ch-vm.sock",
        "run/kata/IDx/ch-vm.sock",
        // The socket itself is named by the id, and no directory is.
        "run/kata/ID",
    ] {
        let refused = run.open(path);
        assert!(
            matches!(refused, Ok(Err(NotOwnSocket::NoDirectory { .. }))),
            "{path}: {refused:?}"
        );
    }
    for path in ["tmp/ID/ch-vm.sock", "run/user/1000/tmp/ID/ch-vm.sock"] {
        let refused = run.open(path);
        assert!(
            matches!(refused, Ok(Err(NotOwnSocket::OtherRoot { .. }))),
            "{path}: {refused:?}"
        );
    }
    for path in [
        "run/kata/ID/daemon",
        "run/kata/ID/other/ch-vm.sock",
        "run/kata/ID/../other/ch-vm.sock",
        "run/kata/ID/../../containerd/containerd.sock",
    ] {
        let refused = run.open(path);
        assert!(
            matches!(refused, Ok(Err(NotOwnSocket::Outside { .. }))),
            "{path}: {refused:?}"
        );
    }
    fs::write(run.path("run/kata/ID/file"), "").unwrap();
    assert!(matches!(
        run.open("run/kata/ID/file"),
        Ok(Err(NotOwnSocket::NoSocket))
    ));
    let gone = run.open("run/kata/ID/gone").unwrap_err();
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_sandbox_named_like_a_directory_of_katas_owns_no_others() {
    let mut run = Run::new();
    run.socket("run/vc/vm/other/clh.sock");
    let open = |id: &str, path: &str| own_socket(&run.path(path), id, &run.directories());
    assert!(matches!(
        open("vc", "run/vc/vm/other/clh.sock"),
        Ok(Err(NotOwnSocket::OtherRoot { .. }))
    ));
    assert!(matches!(
        open("", "run/vc/vm/other/clh.sock"),
        Ok(Err(NotOwnSocket::NoDirectory { .. }))
    ));
}

#[test]
fn a_long_path_is_given_up_like_any_other() {
    let mut run = Run::new();
    let path = format!("run/kata/{}/ID/ch-vm.sock", "x".repeat(120));
    run.socket(&path);
    let address = GuestAddress::Hybrid {
        socket: run.path(&path),
        port: 7,
    };
    // Nobody accepts, so the handshake has no answer.
    let directories = run.directories();
    let connecting = async { timeout(Duration::from_millis(50), connect(&address, ID, &directories)).await };
    assert!(block_on(connecting).is_err());
}

#[test]
fn a_path_of_any_length_is_connected_to() {
    let mut run = Run::new();
    let path = format!("run/kata/{}/ID/ch-vm.sock", "x".repeat(120));
    run.socket(&path);
    let socket = run.path(&path);
    assert!(UnixListener::bind(&socket).is_err(), "no socket address holds it");
    let address = GuestAddress::Hybrid { socket, port: 7 };
    let listener = run.sockets.pop().unwrap();
    let server = std::thread::spawn(move || {
        use std::io::{BufRead, BufReader, Write};
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        (&stream).write_all(b"OK 5\n").unwrap();
        line
    });
    let connected = block_on(connect(&address, ID, &run.directories()));
    assert!(connected.is_ok(), "{:?}", connected.err());
    assert_eq!(server.join().unwrap(), "CONNECT 7\n");
}

/// What a handshake says to a hypervisor that sends these bytes and closes, and what is left to read after it.
fn shaken(bytes: &[u8]) -> Result<Vec<u8>, GuestError> {
    block_on(async {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut ours = connection(ours);
        theirs.write_all(bytes).await.unwrap();
        theirs.shutdown().await.unwrap();
        let address = GuestAddress::parse("hvsock:///s:1024").unwrap();
        handshake(&mut ours, &address, 1024).await?;
        let mut rest = Vec::new();
        ours.read_to_end(&mut rest).await.unwrap();
        Ok(rest)
    })
}

#[test]
fn a_handshake_is_one_line_and_no_more_is_read() {
    assert_eq!(shaken(b"OK 1073741824\n").unwrap(), b"");
    assert_eq!(shaken(b"OK 1\n\0\0next").unwrap(), b"\0\0next");
}

#[test]
fn a_handshake_that_is_none_is_an_error() {
    for answer in [
        &b"ERR no such port\n"[..],
        b"\n",
        b"OK\n",
        b"NOT OK 5\n",
        b"\xff\xfe\n",
    ] {
        let error = shaken(answer).unwrap_err();
        assert!(matches!(error, GuestError::Handshake { .. }), "{error:?}");
    }
    // Without end: no more is read than a line has.
    match shaken(&b"OK 1".repeat(1 << 10)).unwrap_err() {
        GuestError::Handshake { answer, .. } => assert_eq!(answer.len(), 64),
        other => panic!("{other:?}"),
    }
    for cut in [&b""[..], b"OK", b"OK 12"] {
        let error = shaken(cut).unwrap_err();
        assert!(matches!(error, GuestError::Closed { .. }), "{error:?}");
    }
}

#[test]
fn a_hypervisor_that_never_answers_can_be_given_up() {
    block_on(async {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut ours = connection(ours);
        let address = GuestAddress::parse("hvsock:///s:1024").unwrap();
        let shaking = handshake(&mut ours, &address, 1024);
        assert!(timeout(Duration::from_millis(50), shaking).await.is_err());
    });
}

/// This machine, where its kernel has vsock loopback.
const LOOPBACK: u32 = 1;

/// A listener on vsock's loopback and its port; `None` where the kernel has none, which is said.
fn on_loopback() -> Option<(Socket, u32)> {
    const ANY: u32 = u32::MAX;
    let listen = || {
        let listener = Socket::new(Domain::VSOCK, Type::STREAM, None)?;
        listener.bind(&SockAddr::vsock(LOOPBACK, ANY))?;
        listener.listen(1)?;
        let port = listener.local_addr()?.as_vsock_address().map(|(_, port)| port);
        io::Result::Ok((listener, port.unwrap()))
    };
    match listen() {
        Ok(listener) => Some(listener),
        Err(error) => {
            eprintln!("skipped: this kernel has no vsock loopback (module vsock_loopback): {error}");
            None
        }
    }
}

/// A guest that takes connections over AF_VSOCK and answers nothing, as its kernel does where its agent hangs.
#[test]
fn a_guest_that_hangs_is_given_up_over_vsock_as_well() {
    let Some((_listener, port)) = on_loopback() else {
        return;
    };
    let address = GuestAddress::Vsock { cid: LOOPBACK, port };
    let limit = Duration::from_millis(100);
    block_on(async {
        let mut agent = AgentConnection::connect(&GuestSockets::default(), &address, ID)
            .await
            .unwrap();
        assert!(timeout(limit, agent.check(limit)).await.is_err());
    });
}

/// Over the kernel's loopback, where it has one.
#[test]
fn a_vsock_port_is_connected_to() {
    let Some((listener, port)) = on_loopback() else {
        return;
    };
    let server = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let mut question = [0; 8];
        stream.read_exact(&mut question).unwrap();
        stream.write_all(b"answer").unwrap();
        question
    });
    block_on(async {
        let mut stream = vsock::connect(LOOPBACK, port).await.unwrap();
        stream.write_all(b"question").await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer");
        // Nobody listens there any more.
        assert!(vsock::connect(LOOPBACK, port).await.is_err());
    });
    assert_eq!(&server.join().unwrap(), b"question");
}

#[test]
fn a_machine_that_is_not_there_is_an_error_in_the_end() {
    // A context id that no machine has. The kernel says so at once, or after two seconds where it asks a host.
    let result = block_on(vsock::connect(0x7fff_fff0, 1024));
    assert!(result.is_err(), "{result:?}");
}
