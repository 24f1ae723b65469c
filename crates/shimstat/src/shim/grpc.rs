//! A gRPC client with one call in flight, for shims of sandboxers that speak gRPC instead of ttrpc: unary calls over HTTP/2
//! without TLS (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>). The services and messages are ttrpc's.
//!
//! Nothing runs beside a call: the connection is read and written only while somebody waits for an answer.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::Bytes;
use h2::client::{self, SendRequest};
use http::{HeaderMap, Request, Version};
use tokio::io::{AsyncRead, AsyncWrite};

use super::ttrpc::{Call, CallError};

/// The most bytes of headers, and of trailers, that are read of an answer.
const HEADERS_LIMIT: u32 = 16 << 10;

/// Before each message: whether it is compressed, and its length.
const PREFIX_LENGTH: usize = 5;

/// Counted for each frame of an answer, or a server could send empty ones without end.
const FRAME_HEADER_LENGTH: usize = 9;

/// The most milliseconds that `grpc-timeout` can tell.
const LONGEST_TIMEOUT: u128 = 99_999_999;

/// A connection to a gRPC server.
pub(super) struct GrpcClient<S: AsyncRead + AsyncWrite + Unpin> {
    streams: SendRequest<Bytes>,
    connection: client::Connection<S, Bytes>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> GrpcClient<S> {
    /// Begins a connection. The server need not have answered.
    pub async fn begin(stream: S) -> Result<Self, CallError> {
        let (streams, connection) = client::Builder::new()
            .enable_push(false)
            .max_header_list_size(HEADERS_LIMIT)
            .handshake(stream)
            .await
            .map_err(failed)?;
        Ok(Self { streams, connection })
    }

    /// Makes a call and returns the message that answers it. Put a deadline around it.
    pub async fn call(&mut self, call: Call<'_>) -> Result<Vec<u8>, CallError> {
        let mut exchange = pin!(exchange(self.streams.clone(), call));
        poll_fn(|context| {
            let ended = Pin::new(&mut self.connection).poll(context);
            match (exchange.as_mut().poll(context), ended) {
                (Poll::Pending, Poll::Ready(Ok(()))) => Poll::Ready(Err(CallError::Closed)),
                (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(failed(error))),
                (answer, _) => answer,
            }
        })
        .await
    }
}

async fn exchange(streams: SendRequest<Bytes>, call: Call<'_>) -> Result<Vec<u8>, CallError> {
    let request = Request::post(format!("http://shim/{}/{}", call.service, call.method))
        .version(Version::HTTP_2)
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .header(
            "grpc-timeout",
            format!("{}m", call.timeout.as_millis().min(LONGEST_TIMEOUT)),
        )
        .body(())
        .map_err(|error| CallError::Malformed(error.to_string()))?;
    let mut streams = streams.ready().await.map_err(failed)?;
    let (response, mut body) = streams.send_request(request, false).map_err(failed)?;
    body.send_data(with_prefix(call.payload)?, true).map_err(failed)?;
    let response = response.await.map_err(failed)?;
    let malformed = |what: String| CallError::Malformed(format!("{}: {what}", call.method));
    let (head, mut body) = response.into_parts();
    if head.status != 200 {
        return Err(malformed(format!("HTTP status {}", head.status.as_u16())));
    }
    // Without a message the status comes at once.
    if let Some(status) = status(&head.headers) {
        status?;
    }
    let mut message = Vec::new();
    let mut left = call.limit.saturating_add(PREFIX_LENGTH);
    while let Some(frame) = body.data().await {
        let frame = frame.map_err(failed)?;
        left = left
            .checked_sub(frame.len())
            .and_then(|left| left.checked_sub(FRAME_HEADER_LENGTH))
            .ok_or(CallError::TooLarge { limit: call.limit })?;
        message.extend_from_slice(&frame);
        body.flow_control()
            .release_capacity(frame.len())
            .map_err(failed)?;
    }
    let trailers = body.trailers().await.map_err(failed)?.unwrap_or_default();
    // Without one the answer was cut off.
    status(&trailers).ok_or_else(|| malformed("an answer without a grpc-status".to_owned()))??;
    without_prefix(message).map_err(malformed)
}

fn with_prefix(message: &[u8]) -> Result<Bytes, CallError> {
    let length = u32::try_from(message.len())
        .map_err(|_| CallError::Malformed("the request is too long".to_owned()))?;
    Ok([&[0][..], &length.to_be_bytes(), message].concat().into())
}

fn without_prefix(mut bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    let Some(&[compressed, a, b, c, d]) = bytes.first_chunk::<PREFIX_LENGTH>() else {
        return Err("no message".to_owned());
    };
    if compressed != 0 {
        return Err("it is compressed, which was not asked for".to_owned());
    }
    bytes.drain(..PREFIX_LENGTH);
    if usize::try_from(u32::from_be_bytes([a, b, c, d])) != Ok(bytes.len()) {
        return Err("its length is not the one announced".to_owned());
    }
    Ok(bytes)
}

/// What headers or trailers say of the call; `None` where they say nothing.
fn status(headers: &HeaderMap) -> Option<Result<(), CallError>> {
    let text = |name| Some(headers.get(name)?.as_bytes());
    let code = std::str::from_utf8(text("grpc-status")?).ok()?.parse().ok()?;
    Some(match code {
        0 => Ok(()),
        code => Err(CallError::Status {
            code,
            message: percent_decoded(text("grpc-message").unwrap_or_default()),
        }),
    })
}

/// A message as its server wrote it: other bytes than printable ASCII are sent as `%` and two hex digits.
fn percent_decoded(mut text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    while let Some((&byte, rest)) = text.split_first() {
        let escaped = (byte == b'%')
            .then(|| rest.split_at_checked(2))
            .flatten()
            .and_then(|(digits, after)| {
                let digits = std::str::from_utf8(digits).ok()?;
                Some((u8::from_str_radix(digits, 16).ok()?, after))
            });
        let (byte, rest) = escaped.unwrap_or((byte, rest));
        bytes.push(byte);
        text = rest;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn failed(error: h2::Error) -> CallError {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    let text = error.to_string();
    match error.into_io() {
        Some(error) if matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof) => {
            CallError::Closed
        }
        Some(error) => CallError::Io(error),
        None => CallError::Malformed(format!("HTTP/2: {text}")),
    }
}

#[cfg(test)]
mod tests;
