//! The shim: `State` and `Stats` of the sandbox and of the container in it, over ttrpc.

use std::io;

use containerd_shim_protos::api::{StateRequest, StateResponse, StatsResponse};
use protobuf::well_known_types::any::Any;
use protobuf::{EnumOrUnknown, Message, MessageField};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use ttrpc::proto::{MESSAGE_TYPE_RESPONSE, Request, Response, Status};

use super::place::child;

/// The longest request that is taken, in bytes: ttrpc's own limit.
const MOST: usize = 4 << 20;

const SANDBOX: &[u8] =
    include_bytes!("../../../crates/shimstat/tests/fixtures/kata-3.30-go/stats-sandbox.v1.bin");
const CHILD: &[u8] =
    include_bytes!("../../../crates/shimstat/tests/fixtures/kata-3.30-go/stats-child.v1.bin");

/// Serves a shim for ever. Where its guest hangs, `State` is answered and `Stats` is not.
pub async fn serve(listener: UnixListener, sandbox: String, hangs: bool) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(connection(stream, sandbox.clone(), hangs));
    }
}

async fn connection(mut stream: UnixStream, sandbox: String, hangs: bool) -> io::Result<()> {
    let mut header = [0; 10];
    while stream.read_exact(&mut header).await.is_ok() {
        let [l0, l1, l2, l3, s0, s1, s2, s3, ..] = header;
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if length > MOST {
            break;
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let request = Request::parse_from_bytes(&body)?;
        if hangs && request.method == "Stats" {
            continue;
        }
        let answer = answer(&request, &sandbox)?.write_to_bytes()?;
        let mut frame = u32::try_from(answer.len())
            .unwrap_or_default()
            .to_be_bytes()
            .to_vec();
        frame.extend_from_slice(&[s0, s1, s2, s3, MESSAGE_TYPE_RESPONSE, 0]);
        frame.extend_from_slice(&answer);
        stream.write_all(&frame).await?;
    }
    Ok(())
}

fn answer(request: &Request, sandbox: &str) -> Result<Response, protobuf::Error> {
    // Requests for the state and for statistics begin with the same field, the id.
    let id = StateRequest::parse_from_bytes(&request.payload)?.id;
    let recorded = if id == sandbox {
        SANDBOX
    } else if id == child(sandbox) {
        CHILD
    } else {
        // NOT_FOUND, as Kata's Go shim says it.
        return Ok(error(5, format!("container does not exist {id}: not found")));
    };
    let mut response = Response::new();
    response.payload = match (request.service.as_str(), request.method.as_str()) {
        ("containerd.task.v2.Task", "State") => {
            let mut state = StateResponse::new();
            state.id = id;
            // Running.
            state.status = EnumOrUnknown::from_i32(2);
            state.write_to_bytes()?
        }
        ("containerd.task.v2.Task", "Stats") => {
            let mut stats = Any::new();
            stats.type_url = "io.containerd.cgroups.v1.Metrics".to_string();
            stats.value = recorded.to_vec();
            let mut reply = StatsResponse::new();
            reply.stats = MessageField::some(stats);
            reply.write_to_bytes()?
        }
        // UNIMPLEMENTED.
        (service, method) => return Ok(error(12, format!("/{service}/{method} is not supported"))),
    };
    Ok(response)
}

fn error(code: i32, message: String) -> Response {
    let mut status = Status::new();
    status.code = EnumOrUnknown::from_i32(code);
    status.message = message;
    let mut response = Response::new();
    response.status = MessageField::some(status);
    response
}
