//! What a guest's agent may send: raw frames, and messages in a frame as it should be.
#![no_main]

use fuzz::{Answer, response, run, split};
use libfuzzer_sys::fuzz_target;
use shimstat::{guest, stats};

fuzz_target!(|data: &[u8]| {
    let (kind, bytes) = split(data);
    let frame = match kind & 0x80 {
        0 => response(bytes),
        _ => bytes.to_vec(),
    };
    let connection = Answer::new(&frame, usize::MAX).connection();
    if let Some(stats) = run(guest::fuzzing::ask(connection, kind)) {
        let text = stats::event("a", &stats).to_string();
        let again: serde_json::Value = serde_json::from_str(&text).expect("an event is JSON");
        assert_eq!(again.to_string(), text);
    }
});
