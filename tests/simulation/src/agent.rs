//! The simulated agent in a sandbox's guest.

use std::sync::Arc;

use tokio::io::{AsyncWriteExt, DuplexStream};
use ttrpc::proto::Request;

use crate::mood::Mood;
use crate::sandbox::{Sandbox, Slot, What};
use crate::shim::DEADLINE_EXCEEDED;
use crate::wire::{self, Requests};

/// Where it listens.
pub fn url(sandbox: usize) -> String {
    format!("vsock://{}:1024", 100 + sandbox)
}

pub async fn serve(stream: DuplexStream, sandbox: Arc<Sandbox>, slot: Slot) {
    tokio::select! {
        biased;
        () = sandbox.gone() => drop(slot.lock().unwrap().take()),
        () = answers(stream, &sandbox, &slot) => {}
    }
}

async fn answers(stream: DuplexStream, sandbox: &Arc<Sandbox>, slot: &Slot) {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut requests = Requests::new(reader, &[]);
    while let Some((stream, request)) = requests.next().await {
        let name = match request.method.as_str() {
            "Check" => "agent Check",
            "StatsContainer" => "agent StatsContainer",
            "GetMetrics" => "agent GetMetrics",
            _ => "agent other",
        };
        *slot.lock().unwrap() = Some(sandbox.begin(name, ""));
        if !sandbox.wait(true).await {
            return;
        }
        let bytes = answer(sandbox, stream, &request);
        let pending = slot.lock().unwrap().take();
        match (pending, bytes) {
            (Some(pending), Err(bytes)) => {
                pending.timed_out();
                let _ = writer.write_all(&bytes).await;
            }
            (Some(pending), Ok(bytes)) => {
                drop(pending);
                let _ = writer.write_all(&bytes).await;
            }
            (None, _) => return,
        }
    }
}

/// An answer; `Err`: one that says that the guest hangs.
fn answer(sandbox: &Sandbox, stream: u32, request: &Request) -> Result<Vec<u8>, Vec<u8>> {
    let id = String::from_utf8_lossy(request.payload.get(2..).unwrap_or_default()).into_owned();
    let is_lying = sandbox.mood() == Mood::Lying;
    let lie = sandbox.dice().below(5);
    let invented = sandbox.invented();
    match lie {
        0 if is_lying => return Ok(wire::error(stream, 7, wire::guest_stats(invented))),
        1 if is_lying => return Err(wire::error(stream, DEADLINE_EXCEEDED, Vec::new())),
        2 if is_lying => {
            return Ok(wire::frame(
                stream,
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            ));
        }
        _ => {}
    }
    let payload = match request.method.as_str() {
        "Check" => wire::field(1, 1),
        "StatsContainer" => wire::guest_stats(sandbox.number(What::Stats, &id)),
        "GetMetrics" => {
            let number = sandbox.number(What::Page, "");
            wire::nested(1, format!("kata_guest_load {number}\n").as_bytes())
        }
        "Version" => wire::nested(2, b"4.1.0"),
        "GetGuestDetails" => wire::nested(2, &wire::nested(1, b"4.1.0")),
        "GetVolumeStats" => Vec::new(),
        "ListInterfaces" => wire::nested(1, &wire::nested(2, b"eth0")),
        other => panic!("{other}"),
    };
    Ok(wire::answer(stream, payload))
}
