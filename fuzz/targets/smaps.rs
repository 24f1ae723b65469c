//! `/proc/<pid>/smaps` of a sandbox's processes: what is read of two parts adds up to what is read of the whole, and it is
//! never more than the text says.
#![no_main]

use fuzz::split;
use libfuzzer_sys::fuzz_target;
use shimstat::node::fuzzing::smaps;

fuzz_target!(|data: &[u8]| {
    let (first, bytes) = split(data);
    let (is_vmm, line) = (first & 1 == 1, usize::from(first >> 1));
    let text = String::from_utf8_lossy(bytes);
    let (guest, rest) = smaps(&text, is_vmm);

    // Every number, in units of 1,024 bytes: a mapping's parts overlap, so that this is more than the memory there is.
    let all: u128 = text
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|digits| digits.parse::<u64>().ok())
        .map(|number| u128::from(number) * 1024)
        .sum();
    assert!(u128::from(guest) + u128::from(rest) <= all, "{guest} + {rest} of {all}");

    // A mapping ends where a line does not begin as its fields do.
    let starts = text.match_indices('\n').map(|(at, _)| at + 1);
    let cuts = starts.filter(|at| !text[*at..].starts_with(|c: char| c.is_ascii_uppercase()));
    if let Some(cut) = cuts.cycle().nth(line % 64).filter(|_| all < u128::from(u64::MAX)) {
        let (one, other) = (smaps(&text[..cut], is_vmm), smaps(&text[cut..], is_vmm));
        assert_eq!((one.0 + other.0, one.1 + other.1), (guest, rest), "cut at {cut}");
    }
});
