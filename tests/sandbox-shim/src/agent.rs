//! The agent in the guest: a unix socket as Cloud Hypervisor and Firecracker have it (`CONNECT <port>`, then `OK`), behind
//! which ttrpc is spoken. There is no guest, so it tells of the containers' real cgroups on this machine.
//!
//! A sandbox has one with the annotation `io.kata-runtime.test.agent=yes`. Two files are beside its socket, in the
//! sandbox's own directory below `/run/vc/sbs` or `/run/kata`:
//!
//! - `agent`, for tests to write: `hang` (no call is answered, and the shim waits for the agent as Kata's do), `refuse`
//!   (the policy allows checks alone), `lie` (numbers and names that no guest should have), `drip` (a byte every 100 ms),
//!   `slow` (the shim's `Stats` takes 100 ms).
//! - `calls`: a line for each call to the agent (`guest grpc.Health/Check`), the shim (`shim stats`) and its monitor
//!   (`monitor /metrics`), and one when more questions than ever before are put to the shim at once (`2 at once`).

use std::{
    fs::{self, File},
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use protobuf::{CodedOutputStream, EnumOrUnknown, Message, MessageField};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};
use ttrpc::proto::{GenMessage, MessageHeader, Request, Response, Status};

use crate::{cgroup::Cgroup, spec::Spec};

const PORT: u32 = 1024;

const DRIP: Duration = Duration::from_millis(100);

pub struct Agent {
    directory: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Well,
    Hangs,
    Refuses,
    Lies,
    Drips,
    Slow,
}

/// What an agent tells of.
pub trait Guest: Send + Sync + 'static {
    fn stats(&self, container: &str) -> Option<Vec<u8>>;
    fn metrics(&self) -> String;
}

impl Agent {
    /// The agent of a sandbox, where its annotation asks for one.
    pub fn of(spec: &Spec, directory: PathBuf) -> Option<Self> {
        (spec.annotation("io.kata-runtime.test.agent") == Some("yes")).then_some(Self { directory })
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("agent.sock")
    }

    /// What the monitor answers to `GET /agent-url`.
    pub fn url(&self) -> String {
        format!("hvsock://{}:{PORT}", self.socket().display())
    }

    pub fn mode(&self) -> Mode {
        match fs::read_to_string(self.directory.join("agent"))
            .unwrap_or_default()
            .trim()
        {
            "hang" => Mode::Hangs,
            "refuse" => Mode::Refuses,
            "lie" => Mode::Lies,
            "drip" => Mode::Drips,
            "slow" => Mode::Slow,
            _ => Mode::Well,
        }
    }

    /// Writes a call down. One that cannot be is missed by the test that looks for it.
    pub fn note(&self, call: &str) {
        let file = File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("calls"));
        if let Ok(mut file) = file {
            let _ = writeln!(file, "{call}");
        }
    }

    /// Serves any number of connections, in the background.
    pub fn serve(self: Arc<Self>, guest: Arc<impl Guest>) -> io::Result<()> {
        let listener = UnixListener::bind(self.socket())?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (agent, guest) = (self.clone(), guest.clone());
                // A client that goes away in the middle is its own affair.
                tokio::spawn(async move { agent.connection(stream, &*guest).await.ok() });
            }
        });
        Ok(())
    }

    async fn connection(&self, mut stream: UnixStream, guest: &impl Guest) -> io::Result<()> {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') && line.len() < 64 {
            line.push(stream.read_u8().await?);
        }
        if line != format!("CONNECT {PORT}\n").as_bytes() {
            return Ok(());
        }
        stream.write_all(b"OK 1073741824\n").await?;
        while let Ok(frame) = GenMessage::read_from(&mut stream).await {
            let request = Request::parse_from_bytes(&frame.payload)?;
            self.note(&format!("guest {}/{}", request.service, request.method));
            let mut response = Response::new();
            match self.answer(&request, guest) {
                None => continue,
                Some(Ok(payload)) => response.payload = payload,
                Some(Err((code, message))) => {
                    let mut status = Status::new();
                    status.code = EnumOrUnknown::from_i32(code);
                    status.message = message;
                    response.status = MessageField::some(status);
                }
            }
            let body = response.write_to_bytes()?;
            let length = u32::try_from(body.len()).map_err(io::Error::other)?;
            let header = MessageHeader::new_response(frame.header.stream_id, length);
            let answer = [Vec::from(header), body].concat();
            match self.mode() {
                Mode::Drips => {
                    for byte in answer {
                        stream.write_all(&[byte]).await?;
                        tokio::time::sleep(DRIP).await;
                    }
                }
                _ => stream.write_all(&answer).await?,
            }
        }
        Ok(())
    }

    /// `None`: no answer.
    fn answer(&self, request: &Request, guest: &impl Guest) -> Option<Result<Vec<u8>, (i32, String)>> {
        let call = format!("{}/{}", request.service, request.method);
        let answer = match (self.mode(), call.as_str()) {
            (Mode::Hangs, _) => return None,
            (_, "grpc.Health/Check") => number(1, 1),
            (_, "grpc.Health/Version") => [bytes(1, b"0.0.1"), bytes(2, b"4.1.0")].concat(),
            (Mode::Refuses, _) => return Some(Err((7, format!("{call} is blocked by policy")))),
            (Mode::Lies, "grpc.AgentService/StatsContainer") => lies(),
            (Mode::Lies, "grpc.AgentService/GetMetrics") => bytes(
                1,
                b"kata_guest_load{item=\"load1\"} 0.5\nkata_hypervisor_threads 999\ncontainer_last_seen 1\n",
            ),
            (_, "grpc.AgentService/StatsContainer") => {
                // container_id, field 1: a text of less than 128 bytes.
                let id = request.payload.get(2..).unwrap_or_default();
                match guest.stats(&String::from_utf8_lossy(id)) {
                    Some(stats) => stats,
                    None => return Some(Err((3, "invalid container id".to_owned()))),
                }
            }
            (_, "grpc.AgentService/GetMetrics") => bytes(1, guest.metrics().as_bytes()),
            (_, "grpc.AgentService/GetVolumeStats") => match volume(&request.payload) {
                Ok(usage) => usage,
                Err(error) => return Some(Err((13, error.to_string()))),
            },
            (_, "grpc.AgentService/ListInterfaces") => bytes(1, &loopback()),
            (_, "grpc.AgentService/GetGuestDetails") => {
                [number(1, 128 << 20), bytes(2, &bytes(1, b"4.1.0"))].concat()
            }
            _ => return Some(Err((12, format!("{call} is not supported")))),
        };
        Some(Ok(answer))
    }
}

/// `StatsContainerResponse` of a container's cgroup; field numbers from Kata 4.1.0, `agent.proto`.
pub fn stats(cgroup: &Cgroup) -> Vec<u8> {
    let (cpu, memory, pids) = match cgroup {
        Cgroup::V1(_) => {
            let ticks = cgroup.flat("cpuacct", "cpuacct.stat");
            let nanoseconds = |key: &str| ticks.get(key).map_or(0, |n| n * 10_000_000);
            let usage = cgroup.number("cpuacct", "cpuacct.usage");
            (
                usage_message(usage, nanoseconds("system"), nanoseconds("user")),
                entry(
                    cgroup.number("memory", "memory.usage_in_bytes"),
                    cgroup.number("memory", "memory.max_usage_in_bytes"),
                    cgroup.number("memory", "memory.limit_in_bytes"),
                ),
                cgroup.number("pids", "pids.current"),
            )
        }
        Cgroup::V2(_) => {
            let stat = cgroup.flat("cpu", "cpu.stat");
            let nanoseconds = |key: &str| stat.get(key).map(|n| n * 1000);
            (
                usage_message(
                    nanoseconds("usage_usec"),
                    nanoseconds("system_usec").unwrap_or(0),
                    nanoseconds("user_usec").unwrap_or(0),
                ),
                entry(
                    cgroup.number("memory", "memory.current"),
                    cgroup.number("memory", "memory.peak"),
                    cgroup.number("memory", "memory.max").or(Some(u64::MAX)),
                ),
                cgroup.number("pids", "pids.current"),
            )
        }
    };
    let mut memory = bytes(2, &memory);
    for (key, value) in cgroup.flat("memory", "memory.stat") {
        memory.extend(bytes(6, &[bytes(1, key.as_bytes()), number(2, value)].concat()));
    }
    let stats = [
        bytes(1, &bytes(1, &cpu)),
        bytes(2, &memory),
        bytes(3, &number(1, pids.unwrap_or(0))),
    ];
    bytes(1, &stats.concat())
}

/// `VolumeStatsResponse` of a path in the guest. Of the sandbox's own mounts there is shm alone, which is this machine's.
fn volume(request: &[u8]) -> io::Result<Vec<u8>> {
    if !request.ends_with(b"/run/kata-containers/sandbox/shm") {
        return Err(io::ErrorKind::NotFound.into());
    }
    let stat = nix::sys::statvfs::statvfs("/dev/shm")?;
    let usage = |total: u64, free: u64, unit| {
        let used = total.saturating_sub(free);
        bytes(
            1,
            &[
                number(1, free),
                number(2, total),
                number(3, used),
                number(4, unit),
            ]
            .concat(),
        )
    };
    let size = stat.fragment_size();
    Ok([
        usage(stat.blocks() * size, stat.blocks_free() * size, 1),
        usage(stat.files(), stat.files_free(), 2),
    ]
    .concat())
}

/// `Interface` of this machine's loopback.
fn loopback() -> Vec<u8> {
    let mtu = fs::read_to_string("/sys/class/net/lo/mtu").unwrap_or_default();
    let address = [bytes(2, b"127.0.0.1"), bytes(3, b"8")].concat();
    [
        bytes(2, b"lo"),
        bytes(3, &address),
        number(4, mtu.trim().parse().unwrap_or(0)),
    ]
    .concat()
}

/// Numbers at which sums overflow, and a key of `memory.stat` that is no key.
fn lies() -> Vec<u8> {
    let most = u64::MAX;
    let memory = [
        bytes(2, &entry(Some(most), Some(most), Some(most))),
        bytes(3, &entry(Some(most), Some(most), Some(most))),
        bytes(6, &[bytes(1, b"\x1b[31mcache\n"), number(2, most)].concat()),
        bytes(6, &[bytes(1, b"inactive_file"), number(2, most)].concat()),
    ];
    let stats = [
        bytes(1, &bytes(1, &usage_message(Some(most), most, most))),
        bytes(2, &memory.concat()),
        bytes(3, &number(1, most)),
    ];
    bytes(1, &stats.concat())
}

fn usage_message(total: Option<u64>, kernel: u64, user: u64) -> Vec<u8> {
    [number(1, total.unwrap_or(0)), number(3, kernel), number(4, user)].concat()
}

fn entry(usage: Option<u64>, most: Option<u64>, limit: Option<u64>) -> Vec<u8> {
    let or_zero = |value: Option<u64>| value.unwrap_or(0);
    [
        number(1, or_zero(usage)),
        number(2, or_zero(most)),
        number(4, or_zero(limit)),
    ]
    .concat()
}

/// A protobuf field that holds a number.
fn number(field: u32, value: u64) -> Vec<u8> {
    written(|stream| stream.write_uint64(field, value))
}

/// A protobuf field that holds a text or a message.
fn bytes(field: u32, value: &[u8]) -> Vec<u8> {
    written(|stream| stream.write_bytes(field, value))
}

fn written(write: impl FnOnce(&mut CodedOutputStream<'_>) -> protobuf::Result<()>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut stream = CodedOutputStream::vec(&mut bytes);
    let written = write(&mut stream);
    debug_assert!(written.is_ok(), "writing to memory does not fail");
    drop(stream);
    bytes
}
