//! The files of a bundle, whatever is in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shimstat::shim::address::Address;

fuzz_target!(|data: &[u8]| {
    shimstat::node::fuzzing::bundle_files(data);
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(address) = Address::parse(text) {
        // What is shown leads to the same place.
        let shown = address.to_string();
        if let Ok(again) = Address::parse(&shown) {
            assert_eq!(again.to_string(), shown);
        }
    }
});
