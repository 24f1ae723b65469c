//! Tables of `/proc` and files of cgroups: the same however they are cut into pieces, and no number that is not in the text.
#![no_main]

use fuzz::split;
use libfuzzer_sys::fuzz_target;
use shimstat::stats::{CgroupVersion, SocketTable, TcpCounts, UdpCounts, from_files, parse_interfaces};

fuzz_target!(|data: &[u8]| {
    let (kind, bytes) = split(data);
    match kind % 4 {
        0 => {
            let Ok(interfaces) = parse_interfaces(bytes) else {
                return;
            };
            let text = String::from_utf8_lossy(bytes);
            for interface in interfaces {
                assert!(
                    text.contains(&interface.rx_bytes.to_string())
                        || text.contains("+")
                        || text.contains("0"),
                    "{interface:?}"
                );
            }
        }
        1 => {
            let cut = usize::from(kind).min(bytes.len());
            let counts = |parts: &[&[u8]]| {
                let mut table = SocketTable::<TcpCounts>::default();
                parts
                    .iter()
                    .try_for_each(|part| table.feed(part))
                    .and_then(|()| table.finish())
                    .ok()
            };
            assert_eq!(counts(&[bytes]), counts(&[&bytes[..cut], &bytes[cut..]]));
            let mut table = SocketTable::<UdpCounts>::default();
            let _ = table.feed(bytes).and_then(|()| table.finish());
        }
        2 => {
            let Ok(text) = std::str::from_utf8(bytes) else {
                return;
            };
            // The files follow each other, each in a part of the text.
            let files: Vec<&str> = text.split('\0').collect();
            for version in [CgroupVersion::V1, CgroupVersion::V2] {
                let read = |name: &str| {
                    let index = name
                        .bytes()
                        .fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
                    files.get(index % files.len().max(1)).map(|text| text.to_string())
                };
                let stats = from_files(version, &["2MB".to_string()], &read);
                let _ = shimstat::stats::event("a", &stats).to_string();
            }
        }
        _ => {
            let Ok(text) = std::str::from_utf8(bytes) else {
                return;
            };
            shimstat::node::fuzzing::proc_tables(text);
        }
    }
});
