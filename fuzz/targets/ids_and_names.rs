//! Ids, names and a guest's address, as users and shims write them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shimstat::guest::GuestAddress;
use shimstat::node::{Id, Wanted};

/// containerd's pattern, by hand: words of letters and digits with one of `._-` between them, 76 bytes at most; or the
/// beginning of such an id, which may end after a separator.
fn is_id(text: &str) -> bool {
    text.len() <= 76
        && text
            .strip_suffix(['.', '_', '-'])
            .unwrap_or(text)
            .split(['.', '_', '-'])
            .all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fuzz_target!(|text: &str| {
    let id = Id::parse(text);
    assert_eq!(id.is_ok(), is_id(text), "{text:?}: {id:?}");
    if let Ok(id) = id {
        assert_eq!(id.as_str(), text);
        assert!(Wanted::parse(text).is_ok());
        let path = std::path::Path::new("/run").join(id.as_str());
        assert_eq!(path.components().count(), 3);
    }
    let _ = Wanted::parse(text);
    if let Ok(address) = GuestAddress::parse(text) {
        assert_eq!(GuestAddress::parse(&address.to_string()).as_ref(), Ok(&address));
    }
});
