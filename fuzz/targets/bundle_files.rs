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
        // What is shown leads to the same place: of a unix socket it is what belongs behind the scheme.
        let shown = address.to_string();
        let written = match &address {
            Address::Path(_) | Address::Abstract(_) => format!("unix://{shown}"),
            Address::Vsock { .. } | Address::Hybrid { .. } => shown.clone(),
        };
        if let Ok(again) = Address::parse(&written) {
            assert_eq!(again.to_string(), shown);
        }
    }
});
