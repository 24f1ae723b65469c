//! For tests: protobuf messages by hand, field by field, as an agent would send them, and a runtime.

use std::time::Duration;

use tokio::time::timeout;

/// Runs a future that should end soon.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async { timeout(Duration::from_secs(20), future).await.expect("no end") })
}

/// A field that holds a number.
pub(crate) fn number(field: u32, value: u64) -> Vec<u8> {
    let mut bytes = varint(u64::from(field) << 3);
    bytes.extend(varint(value));
    bytes
}

/// A field that holds a text or a message.
pub(crate) fn bytes(field: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = varint(u64::from(field) << 3 | 2);
    bytes.extend(varint(value.len() as u64));
    bytes.extend_from_slice(value);
    bytes
}

/// A map's entry.
pub(crate) fn entry(field: u32, key: &str, value: &[u8]) -> Vec<u8> {
    bytes(field, &[bytes(1, key.as_bytes()), value.to_vec()].concat())
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
