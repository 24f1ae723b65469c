//! A ttrpc client with one call in flight: frames, requests and responses.
//!
//! `ttrpc`'s own client forgets a call once its time is over, makes room for whatever length a frame claims, and
//! discards oversized frames however long they are. This one reads at most what the caller allows for a call. A call
//! that was dropped before its answer came does no harm: the answer is skipped when it arrives.

use std::io;
use std::time::Duration;

use protobuf::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use ttrpc::proto::{MESSAGE_HEADER_LENGTH, MESSAGE_TYPE_RESPONSE, MessageHeader, Request, Response};

use crate::wire;

/// Room that is made for an answer at once; most fit into it.
const ROOM: usize = 2 << 10;

/// Room that is added at a time for longer ones, so that memory is taken as bytes arrive and not as they are announced.
const MORE_ROOM: usize = 64 << 10;

/// The longest message that ttrpc allows, in bytes.
pub(crate) const LONGEST: usize = ttrpc::proto::MESSAGE_LENGTH_MAX;

/// ttrpc's INVALID_ARGUMENT, NOT_FOUND and UNIMPLEMENTED: what servers answer for an unknown service or method.
const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const UNIMPLEMENTED: i32 = 12;

/// What to call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub service: &'a str,
    pub method: &'a str,
    /// The request message.
    pub payload: &'a [u8],
    /// Sent along as the time after which the server may give up. Not every server does.
    pub timeout: Duration,
    /// The most bytes to read for this call, frames of other calls included.
    pub limit: usize,
}

/// A call without an answer, or not the answer that was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Io(io::Error),
    #[error("closed the connection before it answered")]
    Closed,
    /// The server answered with an error of its own.
    #[error("answered with code {code}: {message}")]
    Status { code: i32, message: String },
    #[error("sent an answer that cannot be read: {0}")]
    Malformed(String),
    #[error("sent an answer of more than {limit} bytes")]
    TooLarge { limit: usize },
}

/// A connection to a ttrpc server.
pub(crate) struct Client<S> {
    stream: S,
    next_stream_id: u32,
    /// What has arrived and was not looked at yet.
    buffer: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            next_stream_id: 1,
            buffer: Vec::new(),
        }
    }

    /// Makes a call and returns the message that answers it. Put a deadline around it.
    pub(crate) async fn call(&mut self, call: Call<'_>) -> Result<Vec<u8>, CallError> {
        let stream_id = self.next_stream_id;
        // ttrpc: a client's stream ids are odd and rise.
        self.next_stream_id = self.next_stream_id.wrapping_add(2);
        self.send(stream_id, call).await?;
        let response = self.receive(stream_id, call.limit).await?;
        let response = wire::parse::<Response>(&response)
            .map_err(|e| CallError::Malformed(format!("{}: no ttrpc response: {e}", call.method)))?;
        match response.status.into_option() {
            Some(status) if status.code.value() != 0 => Err(CallError::Status {
                code: status.code.value(),
                message: status.message,
            }),
            _ => Ok(response.payload),
        }
    }

    async fn send(&mut self, stream_id: u32, call: Call<'_>) -> Result<(), CallError> {
        let mut request = Request::new();
        request.set_service(call.service.to_owned());
        request.set_method(call.method.to_owned());
        request.set_timeout_nano(i64::try_from(call.timeout.as_nanos()).unwrap_or(i64::MAX));
        request.set_payload(call.payload.to_vec());
        let body = request
            .write_to_bytes()
            .map_err(|e| CallError::Malformed(e.to_string()))?;
        let length = u32::try_from(body.len())
            .map_err(|_| CallError::Malformed("the request is too long".to_owned()))?;
        let mut frame = Vec::from(MessageHeader::new_request(stream_id, length));
        frame.extend_from_slice(&body);
        self.stream.write_all(&frame).await.map_err(failed)
    }

    /// Reads frames until the answer to a call, skipping those that answer others.
    async fn receive(&mut self, stream_id: u32, limit: usize) -> Result<Vec<u8>, CallError> {
        let mut left = limit;
        loop {
            let header = loop {
                match self.buffer.first_chunk::<MESSAGE_HEADER_LENGTH>() {
                    Some(header) => break MessageHeader::from(header),
                    None => self.read_more(ROOM).await?,
                }
            };
            let length = usize::try_from(header.length).unwrap_or(usize::MAX);
            left = left.checked_sub(length).ok_or(CallError::TooLarge { limit })?;
            let end = MESSAGE_HEADER_LENGTH + length;
            while self.buffer.len() < end {
                let missing = end.saturating_sub(self.buffer.len());
                self.read_more(missing.min(MORE_ROOM)).await?;
            }
            if header.stream_id == stream_id {
                let payload = self.buffer.get(MESSAGE_HEADER_LENGTH..end).map(<[u8]>::to_vec);
                self.drop_frame(end);
                if header.type_ != MESSAGE_TYPE_RESPONSE {
                    return Err(CallError::Malformed(format!(
                        "frame type {} where a response belongs",
                        header.type_
                    )));
                }
                return Ok(payload.unwrap_or_default());
            }
            self.drop_frame(end);
            // An empty frame counts too, or a server could send them without end.
            left = left
                .checked_sub(MESSAGE_HEADER_LENGTH)
                .ok_or(CallError::TooLarge { limit })?;
        }
    }

    fn drop_frame(&mut self, end: usize) {
        self.buffer.drain(..end);
        // A connection that is kept keeps no room.
        self.buffer.shrink_to_fit();
    }

    async fn read_more(&mut self, room: usize) -> Result<(), CallError> {
        self.buffer.reserve(room);
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) => Err(CallError::Closed),
            Ok(_) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

fn failed(error: io::Error) -> CallError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => CallError::Closed,
        _ => CallError::Io(error),
    }
}

/// Whether an error says that the server has no such service or method. Go's servers say UNIMPLEMENTED, Rust's say that
/// or INVALID_ARGUMENT, and gVisor's shim says NOT_FOUND; the text names the service or the method's path, which tells
/// such an answer from one about an unknown task or argument.
pub(crate) fn is_unknown(code: i32, message: &str, service: &str) -> bool {
    match code {
        UNIMPLEMENTED => true,
        INVALID_ARGUMENT | NOT_FOUND => {
            message.contains(&format!("/{service}/"))
                || message.contains(&format!("service {service}"))
                || message.contains(&format!("{service} service"))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
