//! A simulated shim's task service.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use ttrpc::proto::Request;

use crate::dice::Dice;
use crate::mood::Mood;
use crate::sandbox::{Sandbox, What};
use crate::wire::{self, Requests};

/// ttrpc's DEADLINE_EXCEEDED.
pub const DEADLINE_EXCEEDED: i32 = 4;

const V1: &str = "io.containerd.cgroups.v1.Metrics";

/// How an answer is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Whole,
    /// In pieces, with time between them.
    Dripping,
    /// Half of it; then the connection is closed.
    Half,
}

impl Manner {
    pub fn of(mood: Mood) -> Self {
        match mood {
            Mood::Dripping => Self::Dripping,
            Mood::Cutting => Self::Half,
            _ => Self::Whole,
        }
    }
}

/// Serves one connection: calls are read at once, and each is handled on its own, as ttrpc's servers do.
pub async fn serve(stream: DuplexStream, sandbox: Arc<Sandbox>) {
    let (reader, writer): (ReadHalf<_>, WriteHalf<_>) = tokio::io::split(stream);
    let writer = Arc::new(Mutex::new(writer));
    let mut requests = Requests::new(reader, &[]);
    let mut handlers = JoinSet::new();
    let mut is_open = true;
    while is_open || !handlers.is_empty() {
        tokio::select! {
            biased;
            () = sandbox.gone() => return,
            Some(ended) = handlers.join_next(), if !handlers.is_empty() => match ended {
                Ok(Manner::Half) => return,
                ended => drop(ended),
            },
            request = requests.next(), if is_open => match request {
                Some((stream, request)) => {
                    handlers.spawn(handle(sandbox.clone(), stream, request, writer.clone()));
                }
                // Its calls go on, as they do in a Go shim.
                None => is_open = false,
            },
        }
    }
}

async fn handle(
    sandbox: Arc<Sandbox>,
    stream: u32,
    request: Request,
    writer: Arc<Mutex<WriteHalf<DuplexStream>>>,
) -> Manner {
    let (is_state, name) = match request.method.as_str() {
        "State" => (true, "State"),
        _ => (false, "Stats"),
    };
    // Both requests have the id as their field 1.
    let id = String::from_utf8_lossy(request.payload.get(2..).unwrap_or_default()).into_owned();
    let mut pending = sandbox.begin(name, &id);
    let lock = match sandbox.has_lock {
        true => Some(sandbox.lock.lock().await),
        false => None,
    };
    let guest_answered = sandbox.wait(!is_state).await;
    drop(lock);
    let mood = sandbox.mood();
    let manner = Manner::of(mood);
    let bytes = if !guest_answered {
        wire::error(stream, DEADLINE_EXCEEDED, Vec::new())
    } else if mood == Mood::Lying {
        let lie = sandbox.dice().below(9);
        if is_state && matches!(lie, 1 | 8) {
            pending.runs(true);
        }
        lying(&sandbox, stream, is_state, &id, lie)
    } else if is_state {
        let stopped = sandbox.has_stopped(&id);
        if manner != Manner::Half {
            pending.runs(!stopped);
        }
        let pid = sandbox.number(What::State, &id) as u32;
        wire::answer(stream, wire::state(&id, pid, stopped))
    } else {
        let number = sandbox.number(What::Stats, &id);
        wire::answer(stream, wire::stats(V1, wire::metrics(number)))
    };
    let mut dice = Dice::new(sandbox.dice().roll());
    let mut writer = writer.lock().await;
    send(&mut *writer, &bytes, manner, &mut dice, || drop(pending)).await;
    manner
}

/// Sends an answer. The call ends before its last byte is out: whoever has heard it may ask anew.
pub async fn send(
    writer: &mut (impl AsyncWriteExt + Unpin),
    bytes: &[u8],
    manner: Manner,
    dice: &mut Dice,
    ends: impl FnOnce(),
) {
    let (bytes, last) = match manner {
        Manner::Half => (&bytes[..bytes.len() / 2], &[][..]),
        Manner::Whole | Manner::Dripping => bytes.split_at(bytes.len() - 1),
    };
    match manner {
        Manner::Dripping => {
            let piece = 1 + dice.index(bytes.len());
            for piece in bytes.chunks(piece) {
                let time = dice.below(400);
                tokio::time::sleep(Duration::from_millis(time)).await;
                let _ = writer.write_all(piece).await;
            }
        }
        Manner::Whole | Manner::Half => {
            let _ = writer.write_all(bytes).await;
        }
    }
    ends();
    let _ = writer.write_all(last).await;
}

/// Answers that are none. Their numbers are nobody's.
fn lying(sandbox: &Sandbox, stream: u32, is_state: bool, id: &str, lie: u64) -> Vec<u8> {
    let number = sandbox.invented();
    let other = "another-container";
    let payload = match is_state {
        true => wire::state(other, number as u32, false),
        false => wire::stats(V1, wire::metrics(number)),
    };
    let honest = |sandbox: &Sandbox| match is_state {
        true => wire::state(id, sandbox.number(What::State, id) as u32, false),
        false => wire::stats(V1, wire::metrics(sandbox.number(What::Stats, id))),
    };
    match lie {
        // An error, with an answer beside it.
        0 if is_state => wire::error(stream, sandbox.dice().pick(&[2, 5, 12]), payload),
        0 => wire::error(stream, 2, payload),
        // The answer to a call that nobody has made, then the right answer.
        1 => [
            wire::answer(stream + 101, payload),
            wire::answer(stream, honest(sandbox)),
        ]
        .concat(),
        // Cut off inside of a field.
        2 => wire::answer(stream, payload[..payload.len() - 1].to_vec()),
        // A frame of another kind.
        3 => {
            let mut frame = wire::answer(stream, payload);
            frame[8] = 1;
            frame
        }
        // A length that no answer has.
        4 => {
            let mut frame = wire::answer(stream, payload);
            frame[0] = 0x7f;
            frame
        }
        // About another container, or of a kind that nobody knows.
        5 if is_state => wire::answer(stream, payload),
        5 => wire::answer(stream, wire::stats("example.org/Metrics", wire::metrics(number))),
        // Nothing.
        6 if is_state => wire::error(stream, 2, Vec::new()),
        6 => wire::answer(stream, Vec::new()),
        // No message.
        7 => wire::frame(stream, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        // An answer, said twice.
        _ => {
            let frame = wire::answer(stream, honest(sandbox));
            [frame.clone(), frame].concat()
        }
    }
}
