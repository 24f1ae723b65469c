//! Frames and messages, as a shim and an agent send them.

use containerd_shim_protos::api::{StateResponse, StatsResponse, Status};
use containerd_shim_protos::cgroups::metrics::{
    CPUStat, CPUUsage, MemoryEntry, MemoryStat, Metrics, PidsStat,
};
use protobuf::well_known_types::any::Any;
use protobuf::{CodedOutputStream, EnumOrUnknown, Message, MessageField};
use tokio::io::{AsyncRead, AsyncReadExt};
use ttrpc::proto::{MESSAGE_HEADER_LENGTH, MessageHeader, Request, Response};

/// Requests as they come in. Waiting for one may be given up at any time.
pub struct Requests<R> {
    stream: R,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Requests<R> {
    pub fn new(stream: R, first: &[u8]) -> Self {
        Self {
            stream,
            buffer: first.to_vec(),
        }
    }

    /// The next request; `None` when the client has closed the connection.
    pub async fn next(&mut self) -> Option<(u32, Request)> {
        loop {
            if let Some(header) = self.buffer.first_chunk::<MESSAGE_HEADER_LENGTH>() {
                let header = MessageHeader::from(header);
                let end = MESSAGE_HEADER_LENGTH + header.length as usize;
                if let Some(body) = self.buffer.get(MESSAGE_HEADER_LENGTH..end) {
                    let request = Request::parse_from_bytes(body).unwrap();
                    self.buffer.drain(..end);
                    return Some((header.stream_id, request));
                }
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(1..) => {}
                _ => return None,
            }
        }
    }
}

pub fn frame(stream: u32, body: &[u8]) -> Vec<u8> {
    let header = MessageHeader::new_response(stream, body.len() as u32);
    [&Vec::from(header), body].concat()
}

/// A frame with an answer in it.
pub fn answer(stream: u32, payload: Vec<u8>) -> Vec<u8> {
    let response = Response {
        payload,
        ..Response::new()
    };
    frame(stream, &response.write_to_bytes().unwrap())
}

/// A frame with an error in it, beside a payload that nobody may look at.
pub fn error(stream: u32, code: i32, payload: Vec<u8>) -> Vec<u8> {
    let mut response = Response {
        payload,
        ..Response::new()
    };
    let status = response.status.mut_or_insert_default();
    status.code = EnumOrUnknown::from_i32(code);
    status.message = "simulated".into();
    frame(stream, &response.write_to_bytes().unwrap())
}

pub fn state(id: &str, pid: u32, stopped: bool) -> Vec<u8> {
    let state = StateResponse {
        id: id.into(),
        pid,
        status: if stopped { Status::STOPPED } else { Status::RUNNING }.into(),
        ..StateResponse::new()
    };
    state.write_to_bytes().unwrap()
}

/// Statistics with one number everywhere.
pub fn metrics(number: u64) -> Vec<u8> {
    let usage = CPUUsage {
        total: number,
        user: number,
        kernel: number,
        ..CPUUsage::new()
    };
    let memory = MemoryEntry {
        usage: number,
        ..MemoryEntry::new()
    };
    let metrics = Metrics {
        cpu: MessageField::some(CPUStat {
            usage: MessageField::some(usage),
            ..CPUStat::new()
        }),
        memory: MessageField::some(MemoryStat {
            usage: MessageField::some(memory),
            ..MemoryStat::new()
        }),
        pids: MessageField::some(PidsStat {
            current: number,
            ..PidsStat::new()
        }),
        ..Metrics::new()
    };
    metrics.write_to_bytes().unwrap()
}

pub fn stats(type_url: &str, value: Vec<u8>) -> Vec<u8> {
    let any = Any {
        type_url: type_url.into(),
        value,
        ..Any::new()
    };
    let reply = StatsResponse {
        stats: MessageField::some(any),
        ..StatsResponse::new()
    };
    reply.write_to_bytes().unwrap()
}

/// The agent's statistics of a container, with one number everywhere.
pub fn guest_stats(number: u64) -> Vec<u8> {
    let usage = [field(1, number), field(3, number), field(4, number)].concat();
    let cgroup = [
        nested(1, &nested(1, &usage)),
        nested(2, &nested(2, &field(1, number))),
        nested(3, &field(1, number)),
    ]
    .concat();
    nested(1, &cgroup)
}

pub fn field(number: u32, value: u64) -> Vec<u8> {
    written(|stream| stream.write_uint64(number, value))
}

pub fn nested(number: u32, value: &[u8]) -> Vec<u8> {
    written(|stream| stream.write_bytes(number, value))
}

fn written(write: impl FnOnce(&mut CodedOutputStream<'_>) -> protobuf::Result<()>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut stream = CodedOutputStream::vec(&mut bytes);
    write(&mut stream).unwrap();
    drop(stream);
    bytes
}
