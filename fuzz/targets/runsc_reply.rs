//! What a gVisor sandbox may send over its control socket: the same however it is cut into pieces.
#![no_main]

use fuzz::{Answer, run, split};
use libfuzzer_sys::fuzz_target;
use shimstat::shim::address::Address;
use shimstat::shim::runsc::ControlConnection;
use shimstat::stats;

fn ask(bytes: &[u8], piece: usize) -> (Option<String>, Option<String>) {
    let address = Address::Path("/fuzzed".into());
    let connection = || ControlConnection::new(Answer::new(bytes, piece), address.clone());
    run(async {
        let event = connection().event("a").await;
        let state = connection().runtime_state("a").await;
        if let Ok(event) = &event {
            let text = stats::event("a", &event.stats(None, Some(1 << 40))).to_string();
            let again: serde_json::Value = serde_json::from_str(&text).expect("an event is JSON");
            assert_eq!(again.to_string(), text);
        }
        // What is wrong with an answer may be noticed sooner or later.
        (
            event.ok().map(|event| format!("{event:?}")),
            state.ok().map(|state| format!("{state:?}")),
        )
    })
}

fuzz_target!(|data: &[u8]| {
    let (piece, bytes) = split(data);
    let (event, state) = ask(bytes, usize::MAX);
    let in_pieces = ask(bytes, usize::from(piece));
    // There are no frames: what comes behind an answer makes it wrong only where it comes at once.
    assert!(event.is_none() || event == in_pieces.0);
    assert!(state.is_none() || state == in_pieces.1);
});
