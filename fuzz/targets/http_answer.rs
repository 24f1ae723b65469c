//! What a monitor may answer over HTTP: the same however it is cut into pieces, and never more than was allowed.
#![no_main]

use fuzz::{Answer, run, split};
use libfuzzer_sys::fuzz_target;
use shimstat::shim::address::Address;
use shimstat::shim::monitor;

const MOST: usize = 512;

fn get(bytes: &[u8], piece: usize) -> Result<Vec<u8>, String> {
    let answer = Answer::new(bytes, piece).connection();
    run(monitor::get(
        answer,
        &Address::Path("/fuzzed".into()),
        "/metrics",
        MOST,
    ))
    .map_err(|error| error.to_string())
}

fuzz_target!(|data: &[u8]| {
    let (piece, bytes) = split(data);
    let whole = get(bytes, usize::MAX);
    if let Ok(body) = &whole {
        assert!(body.len() <= MOST);
        // It decodes, and adds nothing.
        assert!(body.len() < bytes.len());
    }
    let pieces = get(bytes, usize::from(piece));
    assert_eq!(whole.as_ref().ok(), pieces.as_ref().ok(), "{whole:?} {pieces:?}");
});
