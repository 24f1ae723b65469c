//! A small client of containerd's CRI, for pods as Kubernetes makes them. Messages are written and read by the numbers of
//! their fields (<https://github.com/kubernetes/cri-api/blob/master/pkg/apis/runtime/v1/api.proto>).

use std::path::{Path, PathBuf};

use bytes::Bytes;
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
        let metadata = Message::default()
            .text(1, name)
            .text(2, &format!("uid-{name}"))
            .text(3, "shop");
        // NODE
        let namespaces = Message::default().number(1, 2);
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
        }
    }

    /// Calls a method of the runtime service; the reply's bytes, or what went wrong.
    fn call(&self, method: &str, request: &Message) -> Result<Vec<u8>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let call = call(&self.socket, method, &request.0);
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
        let config = config.message(15, &linux);
        let request = Message::default()
            .text(1, &self.id)
            .message(2, &config)
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

/// The first field of a reply, which is a text in those that are read here.
fn first_text(reply: &[u8]) -> String {
    assert_eq!(reply.first(), Some(&0x0a), "{reply:?}");
    let length = usize::from(reply[1]);
    String::from_utf8(reply[2..2 + length].to_vec()).unwrap()
}

/// One unary gRPC call.
async fn call(socket: &Path, method: &str, request: &[u8]) -> Result<Vec<u8>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = UnixStream::connect(socket).await.map_err(|e| text(&e))?;
    let (client, connection) = h2::client::handshake(stream).await.map_err(|e| text(&e))?;
    tokio::spawn(connection);
    let mut client = client.ready().await.map_err(|e| text(&e))?;
    let head = http::Request::post(format!("http://localhost/runtime.v1.RuntimeService/{method}"))
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
