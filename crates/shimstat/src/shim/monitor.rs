//! A sandbox's monitor socket: HTTP/1.1, with Kata's Prometheus metrics at `/metrics`.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::address::Address;
use super::connect::Connection;
use super::error::ShimError;
use super::http::{Fault, Response};

/// The longest body that one question takes, in bytes. Kata's are 17 to 135 KB.
pub const BODY_LIMIT: usize = 64 << 20;

/// Room that is made for an answer at once, and again where it was not enough.
const ROOM: usize = 64 << 10;

/// Asks for `path` over a connection and gives back the whole body, which may
/// have `most` bytes. Anything but a complete 200 is an error: what comes back is the body that the shim meant.
/// Put a deadline around it.
pub async fn get(
    mut stream: Connection,
    address: &Address,
    path: &str,
    most: usize,
) -> Result<Vec<u8>, ShimError> {
    let io = |source| ShimError::Io {
        address: address.clone(),
        source,
    };
    let fault = |fault| match fault {
        Fault::Cut => ShimError::Closed {
            address: address.clone(),
        },
        Fault::Status(status) => ShimError::Status {
            address: address.clone(),
            path: path.to_string(),
            status,
        },
        Fault::Encoding(encoding) => ShimError::Encoding {
            address: address.clone(),
            encoding,
        },
        Fault::TooLong => ShimError::TooLarge {
            address: address.clone(),
            limit: most,
        },
        Fault::Malformed(reason) => ShimError::Malformed {
            address: address.clone(),
            reason,
        },
    };
    // The host is the name that Kata's own client sends, and that its users know from its error texts.
    let request = format!("GET {path} HTTP/1.1\r\nHost: shim\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(io)?;
    let mut response = Response::new(most, ROOM);
    loop {
        if response.buffer.len() == response.buffer.capacity() {
            response.buffer.reserve(ROOM);
        }
        match stream.read_buf(&mut response.buffer).await {
            Ok(0) => {
                response.close().map_err(fault)?;
                break;
            }
            Ok(_) if response.advance().map_err(fault)? => break,
            Ok(_) => {}
            // A server that closes with something unread, as one that does not read requests, is seen so.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(fault(Fault::Cut)),
            Err(error) => return Err(io(error)),
        }
    }
    // A node has thousands of bodies at a time.
    response.buffer.shrink_to_fit();
    Ok(response.buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::{Connect, ShimSockets};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    /// Serves one connection the bytes given, then closes; the client's result comes back.
    fn answer(bytes: &[u8]) -> Result<Vec<u8>, ShimError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("monitor.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let bytes = bytes.to_vec();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let n = stream.read(&mut request).unwrap();
            let _ = stream.write_all(&bytes);
            String::from_utf8_lossy(&request[..n]).into_owned()
        });
        let address = Address::Path(path);
        let body = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async {
                tokio::time::timeout(Duration::from_secs(30), async {
                    get(
                        ShimSockets.connect(&address).await?,
                        &address,
                        "/metrics",
                        BODY_LIMIT,
                    )
                    .await
                })
                .await
                .expect("no answer in time")
            });
        let request = server.join().unwrap();
        assert!(request.starts_with("GET /metrics HTTP/1.1\r\n"), "{request}");
        assert!(
            !request.to_ascii_lowercase().contains("accept-encoding"),
            "{request}"
        );
        body
    }

    fn http(head: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {head}\r\n\r\n{body}").into_bytes()
    }

    #[test]
    fn takes_plain_and_chunked_bodies_as_they_are() {
        let plain = http("200 OK\r\nContent-Length: 6", "a 1\nb\r");
        assert_eq!(answer(&plain).unwrap(), b"a 1\nb\r");
        let chunked = http(
            "200 OK\r\nTransfer-Encoding: chunked",
            "3\r\na 1\r\n2\r\n\nb\r\n0\r\n\r\n",
        );
        assert_eq!(answer(&chunked).unwrap(), b"a 1\nb");
        let until_close = http("200 OK\r\nConnection: close", "a 1\n");
        assert_eq!(answer(&until_close).unwrap(), b"a 1\n");
        let identity = http("200 OK\r\nContent-Encoding: identity\r\nContent-Length: 1", "a");
        assert_eq!(answer(&identity).unwrap(), b"a");
    }

    #[test]
    fn a_body_that_ends_early_is_an_error() {
        for bytes in [
            http("200 OK\r\nContent-Length: 10", "a 1\n"),
            http("200 OK\r\nTransfer-Encoding: chunked", "20\r\na 1"),
            http("200 OK\r\nTransfer-Encoding: chunked", "3\r\na 1\r\n"),
            b"HTTP/1.1 200 O".to_vec(),
            Vec::new(),
        ] {
            let error = answer(&bytes).unwrap_err();
            assert!(
                matches!(error, ShimError::Closed { .. } | ShimError::Malformed { .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn anything_but_200_is_an_error_with_its_status() {
        for status in [204, 301, 404, 500] {
            let error = answer(&http(&format!("{status} X\r\nContent-Length: 0"), "")).unwrap_err();
            assert!(
                matches!(error, ShimError::Status { status: s, .. } if s == status),
                "{error}"
            );
        }
    }

    #[test]
    fn a_coding_that_nobody_asked_for_is_an_error() {
        for head in [
            "200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1",
            "200 OK\r\nTransfer-Encoding: gzip, chunked",
        ] {
            let error = answer(&http(head, "1\r\na\r\n0\r\n\r\n")).unwrap_err();
            assert!(
                matches!(&error, ShimError::Encoding { encoding, .. } if encoding == "gzip"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_no_http_is_an_error() {
        assert!(matches!(
            answer(b"\0\0\0\x05ttrpc\r\n\r\n"),
            Err(ShimError::Malformed { .. })
        ));
    }

    #[test]
    fn a_body_beyond_the_limit_is_an_error() {
        let mut bytes = http("200 OK\r\nConnection: close", "");
        bytes.resize(BODY_LIMIT + 1024, b'x');
        assert!(matches!(
            answer(&bytes),
            Err(ShimError::TooLarge {
                limit: BODY_LIMIT,
                ..
            })
        ));
    }
}
