//! A small client of containerd's CRI, for pods as Kubernetes makes them, and of its sandbox controller. Messages are written and read by the numbers of
//! their fields (<https://github.com/kubernetes/cri-api/blob/master/pkg/apis/runtime/v1/api.proto>,
//! <https://github.com/containerd/containerd/blob/main/api/services/sandbox/v1/sandbox.proto>).

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::Value;
use tokio::net::UnixStream;

use super::Containerd;

/// A message's bytes.
#[derive(Default, Clone)]
pub struct Message(Vec<u8>);

impl Message {
    fn number(mut self, field: u32, value: u64) -> Self {
        self.varint(u64::from(field) << 3);
        self.varint(value);
        self
    }

    fn bytes(mut self, field: u32, bytes: &[u8]) -> Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    fn text(self, field: u32, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    fn message(self, field: u32, message: &Self) -> Self {
        self.bytes(field, &message.0)
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// What CRI is asked through.
pub struct Cri {
    socket: PathBuf,
}

/// A pod.
pub struct CriPod<'a> {
    cri: &'a Cri,
    pub id: String,
    config: Message,
    host_pids: bool,
}

/// A pod's namespaces: the host's network (NODE), and its own process ids or the host's.
fn namespaces(host_pids: bool) -> Message {
    let namespaces = Message::default().number(1, 2);
    if host_pids {
        namespaces.number(2, 2)
    } else {
        namespaces
    }
}

impl Cri {
    pub fn of(containerd: &Containerd) -> Self {
        Self {
            socket: containerd.socket(),
        }
    }

    /// Runs a pod of this name in the host's network, in the namespace `shop`. The image may have been imported just now,
    /// so a failure is tried again.
    #[track_caller]
    pub fn run_pod(&self, name: &str, handler: &str) -> CriPod<'_> {
        self.run_pod_with(name, handler, false)
    }

    /// The same, with the host's process ids (`hostPID`).
    #[track_caller]
    pub fn run_pod_with_host_pids(&self, name: &str) -> CriPod<'_> {
        self.run_pod_with(name, "", true)
    }

    #[track_caller]
    fn run_pod_with(&self, name: &str, handler: &str, host_pids: bool) -> CriPod<'_> {
        let metadata = Message::default()
            .text(1, name)
            .text(2, &format!("uid-{name}"))
            .text(3, "shop");
        let namespaces = namespaces(host_pids);
        let security = Message::default().message(1, &namespaces);
        let linux = Message::default().message(2, &security);
        let config = Message::default().message(1, &metadata).message(8, &linux);
        let request = Message::default().message(1, &config).text(2, handler);
        let began = std::time::Instant::now();
        let reply = loop {
            match self.call("RunPodSandbox", &request) {
                Ok(reply) => break reply,
                Err(error) => assert!(began.elapsed().as_secs() < 20, "RunPodSandbox: {error}"),
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        };
        CriPod {
            cri: self,
            id: first_text(&reply),
            config,
            host_pids,
        }
    }

    /// Calls a method of the runtime service; the reply's bytes, or what went wrong.
    fn call(&self, method: &str, request: &Message) -> Result<Vec<u8>, String> {
        self.call_service("runtime.v1.RuntimeService", method, request)
    }

    /// Has a runtime's shim manage a sandbox, in namespace `k8s.io`. It ends when dropped.
    ///
    /// CRI asks for the same where a runtime has `sandboxer = "shim"`, but containerd 2.1.9 panics then: it has no spec
    /// for the sandbox, and looks into it.
    #[track_caller]
    pub fn manage_sandbox(&self, id: &str, runtime: &str) -> ManagedSandbox<'_> {
        let managed = ManagedSandbox {
            cri: self,
            id: id.to_string(),
        };
        let sandbox = Message::default()
            .text(1, id)
            .message(2, &Message::default().text(1, runtime));
        managed
            .call("Create", managed.request().message(6, &sandbox))
            .expect("Create");
        managed.call("Start", managed.request()).expect("Start");
        managed
    }

    fn call_service(&self, service: &str, method: &str, request: &Message) -> Result<Vec<u8>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let path = format!("{service}/{method}");
        let call = call(&self.socket, &path, &request.0);
        runtime
            .block_on(async { tokio::time::timeout(std::time::Duration::from_secs(30), call).await })
            .map_err(|_| "no answer".to_string())?
    }
}

impl CriPod<'_> {
    /// Creates and starts a container in the pod; its id.
    #[track_caller]
    pub fn run(&self, name: &str, command: &[&str], memory_limit: u64) -> String {
        let resources = Message::default().number(4, memory_limit);
        let linux = Message::default().message(1, &resources);
        let mut config = Message::default()
            .message(1, &Message::default().text(1, name))
            .message(2, &Message::default().text(1, "localhost/busybox:1"));
        for word in command {
            config = config.text(3, word);
        }
        self.start(&config.message(15, &linux))
    }

    /// Starts a container of a manifest, such as a DaemonSet's, as the kubelet would: its image, arguments, security context,
    /// limits and volumes, and beside them these arguments before its own, and these directories of the host.
    #[track_caller]
    pub fn run_of_manifest(&self, container: &Value, arguments: &[&str], directories: &[&str]) -> String {
        let texts = |value: &Value| -> Vec<String> {
            let texts = value.as_array().into_iter().flatten();
            texts.map(|text| text.as_str().unwrap().to_string()).collect()
        };
        let security = &container["securityContext"];
        let id = |key: &str| Message::default().number(1, security[key].as_u64().unwrap());
        let [add, drop] = ["add", "drop"].map(|key| texts(&security["capabilities"][key]));
        let capabilities = drop
            .iter()
            .fold(Message::default(), |all, name| all.text(2, name));
        let capabilities = add.iter().fold(capabilities, |all, name| all.text(1, name));
        assert_eq!(security["seccompProfile"]["type"], "Unconfined");
        let security = Message::default()
            .message(1, &capabilities)
            .message(3, &namespaces(self.host_pids))
            .message(5, &id("runAsUser"))
            .message(12, &id("runAsGroup"))
            .number(7, security["readOnlyRootFilesystem"].as_bool().unwrap().into())
            .number(
                11,
                (!security["allowPrivilegeEscalation"].as_bool().unwrap()).into(),
            )
            .message(15, &Message::default().number(1, 1));
        let limits = &container["resources"]["limits"];
        let number = |value: &Value, unit: &str| -> u64 {
            value
                .as_str()
                .unwrap()
                .strip_suffix(unit)
                .unwrap()
                .parse()
                .unwrap()
        };
        let resources = Message::default()
            .number(1, 100_000)
            .number(2, number(&limits["cpu"], "m") * 100)
            .number(4, number(&limits["memory"], "Mi") << 20);
        let linux = Message::default().message(1, &resources).message(2, &security);

        let mut config = Message::default()
            .message(
                1,
                &Message::default().text(1, container["name"].as_str().unwrap()),
            )
            .message(
                2,
                &Message::default().text(1, container["image"].as_str().unwrap()),
            );
        let own = texts(&container["args"]);
        for argument in arguments.iter().copied().chain(own.iter().map(String::as_str)) {
            config = config.text(4, argument);
        }
        let mounts = container["volumeMounts"].as_array().unwrap().iter();
        for path in mounts
            .map(|mount| mount["mountPath"].as_str().unwrap())
            .chain(directories.iter().copied())
        {
            // HostToContainer needs a shared mount, which not every machine has where tests run.
            let mount = Message::default().text(1, path).text(2, path).number(3, 1);
            config = config.message(7, &mount);
        }
        self.start(&config.message(15, &linux))
    }

    #[track_caller]
    fn start(&self, config: &Message) -> String {
        let request = Message::default()
            .text(1, &self.id)
            .message(2, config)
            .message(3, &self.config);
        let reply = self
            .cri
            .call("CreateContainer", &request)
            .expect("CreateContainer");
        let id = first_text(&reply);
        let start = Message::default().text(1, &id);
        self.cri.call("StartContainer", &start).expect("StartContainer");
        id
    }
}

impl Drop for CriPod<'_> {
    fn drop(&mut self) {
        let pod = Message::default().text(1, &self.id);
        let _ = self.cri.call("StopPodSandbox", &pod);
        let _ = self.cri.call("RemovePodSandbox", &pod);
    }
}

/// A sandbox that its shim manages.
pub struct ManagedSandbox<'a> {
    cri: &'a Cri,
    id: String,
}

impl ManagedSandbox<'_> {
    fn request(&self) -> Message {
        Message::default().text(1, &self.id).text(10, "shim")
    }

    fn call(&self, method: &str, request: Message) -> Result<Vec<u8>, String> {
        self.cri
            .call_service("containerd.services.sandbox.v1.Controller", method, &request)
    }

    pub fn stop(&self) {
        self.call("Stop", self.request()).expect("Stop");
    }
}

impl Drop for ManagedSandbox<'_> {
    fn drop(&mut self) {
        let _ = self.call("Stop", self.request());
        let _ = self.call("Shutdown", self.request());
    }
}

/// The first field of a reply, which is a text in those that are read here.
fn first_text(reply: &[u8]) -> String {
    assert_eq!(reply.first(), Some(&0x0a), "{reply:?}");
    let length = usize::from(reply[1]);
    String::from_utf8(reply[2..2 + length].to_vec()).unwrap()
}

/// One unary gRPC call.
async fn call(socket: &Path, path: &str, request: &[u8]) -> Result<Vec<u8>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = UnixStream::connect(socket).await.map_err(|e| text(&e))?;
    let (client, connection) = h2::client::handshake(stream).await.map_err(|e| text(&e))?;
    tokio::spawn(connection);
    let mut client = client.ready().await.map_err(|e| text(&e))?;
    let head = http::Request::post(format!("http://localhost/{path}"))
        // CRI is in this namespace anyway.
        .header("containerd-namespace", "k8s.io")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, mut body) = client.send_request(head, false).map_err(|e| text(&e))?;
    let mut frame = vec![0];
    frame.extend((request.len() as u32).to_be_bytes());
    frame.extend(request);
    body.send_data(Bytes::from(frame), true).map_err(|e| text(&e))?;
    let response = response.await.map_err(|e| text(&e))?;
    let early = response.headers().get("grpc-message").cloned();
    let mut stream = response.into_body();
    let mut reply = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.map_err(|e| text(&e))?;
        let _ = stream.flow_control().release_capacity(data.len());
        reply.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await.map_err(|e| text(&e))?.unwrap_or_default();
    let message = trailers.get("grpc-message").cloned().or(early);
    match trailers.get("grpc-status").map(|status| status.as_bytes()) {
        Some(b"0") => Ok(reply.get(5..).unwrap_or_default().to_vec()),
        other => Err(format!("status {other:?}: {message:?}")),
    }
}
