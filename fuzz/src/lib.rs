//! What the fuzz targets share: a connection that answers with given bytes, and running a future that never waits.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use shimstat::shim::address::Address;
use shimstat::shim::{Connect, Connecting, Connection, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection on which these bytes arrive, in pieces of at most so many, and then the end.
pub struct Answer {
    bytes: Vec<u8>,
    at: usize,
    piece: usize,
}

impl Answer {
    pub fn new(bytes: &[u8], piece: usize) -> Self {
        Self {
            bytes: bytes.to_vec(),
            at: 0,
            piece: piece.max(1),
        }
    }

    pub fn connection(self) -> Connection {
        Box::new(self)
    }
}

impl Stream for Answer {
    fn peer_pid(&self) -> Option<i32> {
        None
    }
}

impl AsyncRead for Answer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let end = self.bytes.len().min(self.at + self.piece.min(out.remaining()));
        out.put_slice(&self.bytes[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Answer {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Connects to these bytes, wherever one connects to.
pub struct Answers<'a>(pub &'a [u8], pub usize);

impl Connect for Answers<'_> {
    fn connect<'a>(&'a self, _: &'a Address) -> Connecting<'a> {
        let answer = Answer::new(self.0, self.1).connection();
        Box::pin(async move { Ok(answer) })
    }
}

/// The result of a future that never waits.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

/// The frame of a response to the first call on a connection, with this payload.
pub fn response(payload: &[u8]) -> Vec<u8> {
    use protobuf::Message;
    let mut response = ttrpc::proto::Response::new();
    response.payload = payload.to_vec();
    let body = response.write_to_bytes().expect("a response can be written");
    let header = ttrpc::proto::MessageHeader::new_response(1, body.len() as u32);
    [Vec::from(header), body].concat()
}

/// The first byte, and what is behind it.
pub fn split(data: &[u8]) -> (u8, &[u8]) {
    data.split_first()
        .map_or((0, &[][..]), |(first, rest)| (*first, rest))
}
