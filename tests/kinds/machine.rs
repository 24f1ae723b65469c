//! A machine on which every kind of node is laid out at its usual place. Its root is a directory: the program runs in
//! there, on this machine's kernel.

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::mock::{self, Call, Ran, Reply};
use crate::stand_in;

pub struct Machine {
    root: tempfile::TempDir,
    processes: RefCell<Vec<Child>>,
    cgroups: RefCell<Vec<PathBuf>>,
    gvisor: RefCell<Vec<stand_in::Sandbox>>,
}

/// Makes what the program needs of this machine visible in its root, and runs it there.
const IN_THERE: &str = "for d in usr bin lib lib64 proc sys; do
    [ ! -e /$d ] || { mkdir -p $0/$d; mount --rbind /$d $0/$d; }
done
touch $0/kata-runtime; mount --bind $1 $0/kata-runtime; shift
exec chroot $0 /kata-runtime \"$@\"";

impl Machine {
    pub fn new() -> Self {
        Self {
            // Sockets are in it, whose paths must be short.
            root: tempfile::Builder::new().prefix("kr").tempdir().unwrap(),
            processes: RefCell::default(),
            cgroups: RefCell::default(),
            gvisor: RefCell::default(),
        }
    }

    /// Where a path of the machine is.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn socket(&self, path: &str) -> PathBuf {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Another name for a socket.
    pub fn link(&self, socket: &str, name: &str) {
        fs::hard_link(self.at(socket), self.socket(name)).unwrap();
    }

    /// A shim that listens there.
    pub fn shim(&self, socket: &str, shim: impl Fn(&Call) -> Reply + Send + Sync + 'static) {
        mock::serve(&self.socket(socket), shim);
    }

    /// Kata's monitor, which sends this page.
    pub fn monitor(&self, socket: &str, page: &[u8]) {
        mock::serve_http(&self.socket(socket), Duration::ZERO, mock::http_chunked(page));
    }

    /// A hypervisor's socket, which passes connections on to a shim in its guest.
    pub fn hybrid_vsock(&self, socket: &str, shim: &str) {
        let (listener, shim) = (UnixListener::bind(self.socket(socket)).unwrap(), self.at(shim));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (mut client, shim) = (client.unwrap(), shim.clone());
                std::thread::spawn(move || {
                    let mut line = String::new();
                    BufReader::with_capacity(1, &client).read_line(&mut line).unwrap();
                    assert_eq!(line, "CONNECT 1024\n");
                    client.write_all(b"OK 1\n").unwrap();
                    let shim = std::os::unix::net::UnixStream::connect(shim).unwrap();
                    let (mut from, mut to) = (client.try_clone().unwrap(), shim.try_clone().unwrap());
                    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                    let _ = std::io::copy(&mut &shim, &mut client);
                });
            }
        });
    }

    /// A shim that speaks gRPC, of the newer task service alone.
    pub fn grpc_shim(&self, socket: &str, shim: impl Fn(&Call) -> Reply + Send + Sync + 'static) {
        let listener = UnixListener::bind(self.socket(socket)).unwrap();
        let shim = Arc::new(shim);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::UnixListener::from_std(listener).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(grpc_connection(stream, shim.clone()));
                }
            });
        });
    }

    /// A gVisor sandbox with a container.
    pub fn gvisor(&self, root: &str, sandbox: &str, container: &str) {
        let (inside, root) = (root, self.at(root));
        fs::create_dir_all(&root).unwrap();
        let sandbox = stand_in::Sandbox::start(&root, sandbox, &[(container, stand_in::IDLE)]);
        for file in fs::read_dir(&root).unwrap().map(|file| file.unwrap().path()) {
            if file.extension().is_some_and(|name| name == "state") {
                let text = fs::read_to_string(&file).unwrap();
                fs::write(file, text.replace(root.to_str().unwrap(), inside)).unwrap();
            }
        }
        self.gvisor.borrow_mut().push(sandbox);
    }

    /// A process of this name with these arguments, which waits until the test ends.
    pub fn process(&self, name: &str, arguments: &[&str]) -> u32 {
        let program = self.socket(&format!("/programs/{name}"));
        let _ = std::os::unix::fs::symlink("/bin/sh", &program);
        let mut command = Command::new(program);
        command.args(["-c", "read line"]).args(arguments);
        self.keep(command.stdin(Stdio::piped()).spawn().unwrap())
    }

    fn keep(&self, child: Child) -> u32 {
        let pid = child.id();
        self.processes.borrow_mut().push(child);
        pid
    }

    /// A process that has this directory of the machine as `/run`, in a mount namespace of its own.
    pub fn process_in_namespace(&self, run: &str) -> u32 {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command
            .arg("mount --bind $0 /run && echo && read line")
            .arg(self.at(run));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for_a_line(&mut child);
        self.keep(child)
    }

    /// A container's process, in a cgroup of its own of all controllers.
    pub fn container_process(&self, id: &str) -> u32 {
        let mut command = Command::new("sh");
        // Memory that is taken before is counted elsewhere.
        command.args(["-c", "read line; taken=$(seq 100000); echo; read line"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let path = format!("kr-{}/{id}", std::process::id());
        let top = Path::new("/sys/fs/cgroup");
        let v1 = fs::read_dir(top).unwrap().map(|entry| entry.unwrap().path());
        let hierarchies: Vec<_> = match top.join("cgroup.procs").exists() {
            true => vec![top.to_path_buf()],
            // A new cpuset has no processors.
            false => v1
                .filter(|path| path.join("cgroup.procs").exists() && !path.ends_with("cpuset"))
                .collect(),
        };
        for hierarchy in hierarchies {
            let cgroup = hierarchy.join(&path);
            fs::create_dir_all(&cgroup).unwrap();
            self.cgroups.borrow_mut().push(cgroup.clone());
            fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        wait_for_a_line(&mut child);
        self.keep(child)
    }

    /// A bundle with these annotations and files.
    pub fn bundle(&self, path: &str, annotations: &Value, files: &[(&str, &str)]) {
        self.write(
            &format!("{path}/config.json"),
            json!({ "annotations": annotations }).to_string(),
        );
        for (name, text) in files {
            self.write(&format!("{path}/{name}"), text);
        }
    }

    /// Runs the program in the machine.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        mock::finish(self.command(arguments))
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", IN_THERE]);
        command.arg(self.root.path());
        command.arg(env!("CARGO_BIN_EXE_kata-runtime")).args(arguments);
        command.env_remove("CONTAINERD_NAMESPACE");
        command
    }

    /// The same as words for a shell.
    #[cfg(feature = "top")]
    pub fn shell_command(&self, arguments: &str) -> String {
        let root = self.root.path().display();
        let program = env!("CARGO_BIN_EXE_kata-runtime");
        self.write("enter.sh", IN_THERE.replace("$0", &root.to_string()));
        format!("unshare --mount --propagation private sh {root}/enter.sh {program} {arguments}")
    }
}

fn wait_for_a_line(child: &mut Child) {
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(stdout.read_line(&mut String::new()).unwrap(), 1);
}

async fn grpc_connection(
    stream: tokio::net::UnixStream,
    shim: Arc<impl Fn(&Call) -> Reply + Send + Sync + 'static>,
) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let shim = shim.clone();
        tokio::spawn(async move {
            let path = request.uri().path().to_string();
            let mut body = request.into_body();
            while body.data().await.is_some() {}
            let (service, method) = path[1..].split_once('/').unwrap();
            let call = Call {
                service: service.to_string(),
                method: method.to_string(),
                timeout_nano: 0,
                came: Instant::now(),
                answered: None,
            };
            let (message, code) = match shim(&call) {
                _ if service != "containerd.task.v3.Task" => (Vec::new(), "12"),
                Reply::Payload(message) => (message, "0"),
                _ => (Vec::new(), "2"),
            };
            let mut send = respond.send_response(http::Response::new(()), false).unwrap();
            let frame = [&[0], &(message.len() as u32).to_be_bytes()[..], &message].concat();
            send.send_data(frame.into(), false).unwrap();
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", code.parse().unwrap());
            send.send_trailers(trailers).unwrap();
        });
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for child in self.processes.get_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for cgroup in self.cgroups.get_mut() {
            let _ = fs::remove_dir(&cgroup);
            let _ = fs::remove_dir(cgroup.parent().unwrap());
        }
    }
}
