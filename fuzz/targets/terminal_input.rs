//! Bytes that a terminal may send: the same keys however they are cut into pieces. And text from elsewhere: escaped, there
//! is nothing in it that a terminal acts on.
#![no_main]

#[allow(dead_code)]
#[path = "../../src/commands/top/keys.rs"]
mod keys;
#[allow(dead_code)]
#[path = "../../src/show/text.rs"]
mod text;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (mut whole, mut pieces) = (keys::Decoder::default(), keys::Decoder::default());
    let at_once = whole.feed(data);
    let one_by_one: Vec<_> = data.iter().flat_map(|byte| pieces.feed(&[*byte])).collect();
    assert_eq!(at_once, one_by_one);
    assert_eq!(whole.settle(), pieces.settle());
    assert!(!whole.is_waiting());
    assert!(at_once.len() <= data.len());
    let text = String::from_utf8_lossy(data);
    let escaped = text::escape(&text);
    assert!(!escaped.chars().any(text::is_active));
    if !text.chars().any(text::is_active) {
        assert_eq!(escaped, text);
    }
});
