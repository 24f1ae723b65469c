//! The monitor: HTTP/1.1, as Kata's Go shim speaks it.

use std::io;
use std::sync::LazyLock;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

const RECORDED: &[u8] = include_bytes!("../../../crates/promtext/tests/fixtures/kata-3.30-go/metrics.txt");

/// The recorded page as it came: chunked.
static METRICS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut answer =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
            .to_vec();
    for chunk in RECORDED.chunks(4096) {
        answer.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        answer.extend_from_slice(chunk);
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"0\r\n\r\n");
    answer
});

const NOTHING: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";

/// Serves a monitor for ever; one that hangs takes questions and does not answer.
pub async fn serve(listener: UnixListener, hangs: bool) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(connection(stream, hangs));
    }
}

async fn connection(mut stream: UnixStream, hangs: bool) -> io::Result<()> {
    let mut request = Vec::new();
    loop {
        let Some(end) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            if stream.read_buf(&mut request).await? == 0 || request.len() > 16 << 10 {
                return Ok(());
            }
            continue;
        };
        if hangs {
            // Until the client gives up, which it should not, or the program ends.
            while stream.read(&mut [0; 64]).await? > 0 {}
            return Ok(());
        }
        let answer = if request.starts_with(b"GET /metrics ") {
            &METRICS
        } else {
            // Of /agent-url as well: there is no agent to be asked before the shim.
            NOTHING
        };
        stream.write_all(answer).await?;
        request.drain(..end + 4);
    }
}
