//! For tests: protobuf messages by hand, field by field, as an agent would send them, and a runtime.

use std::time::Duration;

use protobuf::CodedOutputStream;
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
    written(|stream| stream.write_uint64(field, value))
}

/// A field that holds a text or a message.
pub(crate) fn bytes(field: u32, value: &[u8]) -> Vec<u8> {
    written(|stream| stream.write_bytes(field, value))
}

/// A map's entry.
pub(crate) fn entry(field: u32, key: &str, value: &[u8]) -> Vec<u8> {
    bytes(field, &[bytes(1, key.as_bytes()), value.to_vec()].concat())
}

fn written(write: impl FnOnce(&mut CodedOutputStream<'_>) -> protobuf::Result<()>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut stream = CodedOutputStream::vec(&mut bytes);
    write(&mut stream).unwrap();
    drop(stream);
    bytes
}
