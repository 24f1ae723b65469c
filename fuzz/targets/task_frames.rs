//! All that a shim's task service may send, from the first byte on: no harm, and the same however it is cut into pieces.
#![no_main]

use fuzz::{Answers, run, split};
use libfuzzer_sys::fuzz_target;
use shimstat::shim::fuzzing::state_and_stats;

fuzz_target!(|data: &[u8]| {
    let (piece, bytes) = split(data);
    let ask = |piece| run(async { state_and_stats(&Answers(bytes, piece)).await });
    assert_eq!(ask(usize::MAX), ask(usize::from(piece)));
});
