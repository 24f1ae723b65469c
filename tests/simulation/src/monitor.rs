//! A simulated sandbox's monitor socket.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, DuplexStream};

use crate::agent;
use crate::dice::Dice;
use crate::mood::Mood;
use crate::sandbox::{Sandbox, Slot, What};
use crate::shim::{self, Manner};

pub async fn serve(stream: DuplexStream, sandbox: Arc<Sandbox>, slot: Slot) {
    tokio::select! {
        biased;
        () = sandbox.gone() => drop(slot.lock().unwrap().take()),
        () = answer(stream, &sandbox, &slot) => {}
    }
}

/// Where the guest does not answer, its families are missing and nothing is said of that, as in Kata's Go shim.
fn page(sandbox: &Sandbox, guest_answers: bool) -> String {
    let number = sandbox.number(What::Page, "");
    let guest = match guest_answers {
        true => format!("kata_guest_load {number}\n"),
        false => String::new(),
    };
    format!("kata_shim_threads {number}\n{guest}")
}

async fn answer(mut stream: DuplexStream, sandbox: &Arc<Sandbox>, slot: &Slot) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_buf(&mut request).await {
            Ok(1..) => {}
            _ => return,
        }
    }
    let is_page = request.starts_with(b"GET /metrics ");
    let name = if is_page { "GET /metrics" } else { "GET /agent-url" };
    let pending = sandbox.begin(name, "");
    let pending = if is_page {
        Some(pending)
    } else {
        // It asks nothing of the guest, so it may be given up.
        *slot.lock().unwrap() = Some(pending);
        None
    };
    let lock = match sandbox.has_lock && is_page {
        true => Some(sandbox.lock.lock().await),
        false => None,
    };
    let guest_answers = sandbox.wait(is_page).await;
    drop(lock);
    let mood = sandbox.mood();
    let body = match is_page {
        true => page(sandbox, guest_answers),
        false => format!("{}\n", agent::url(sandbox.index)),
    };
    let invented = sandbox.invented();
    let lie = sandbox.dice().below(5);
    let answer = match lie {
        0 if mood == Mood::Lying => format!("HTTP/1.1 500 No\r\n\r\nkata_shim_threads {invented}\n"),
        1 if mood == Mood::Lying => {
            format!("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nkata_shim_threads {invented}\n")
        }
        2 if mood == Mood::Lying => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n".into(),
        3 if mood == Mood::Lying => format!("kata_shim_threads {invented}\n"),
        _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
    };
    let mut dice = Dice::new(sandbox.dice().roll());
    shim::send(
        &mut stream,
        answer.as_bytes(),
        Manner::of(mood),
        &mut dice,
        || drop(pending.or_else(|| slot.lock().unwrap().take())),
    )
    .await;
}
