//! Connections to a shim's sockets, and what makes them: real sockets, or a simulation's.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use super::address::Address;
use super::error::ShimError;
use super::socket;

/// A connection to a shim's socket.
pub trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {
    /// The pid of the process that listens there; `None` where that is not known.
    fn peer_pid(&self) -> Option<i32>;

    /// Its descriptor; `None` where it has none.
    fn descriptor(&self) -> Option<RawFd> {
        None
    }
}

/// A connection of any kind.
pub type Connection = Box<dyn Stream>;

/// What [`Connect::connect`] returns.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = Result<Connection, ShimError>> + Send + 'a>>;

/// Makes connections. Tests and simulations bring their own.
pub trait Connect: Send + Sync {
    /// Connects. Waits as long as the other side's backlog is full, so put a deadline around it.
    fn connect<'a>(&'a self, address: &'a Address) -> Connecting<'a>;
}

/// Connects to this machine's sockets.
#[derive(Debug, Default, Clone, Copy)]
pub struct ShimSockets;

impl Connect for ShimSockets {
    fn connect<'a>(&'a self, address: &'a Address) -> Connecting<'a> {
        Box::pin(async move { Ok(connection(socket::connect(address).await?)) })
    }
}

/// A connection over a socket of any family: it is only read from and written to.
pub(crate) fn connection(socket: UnixStream) -> Connection {
    Box::new(Socket(socket))
}

/// A socket that is written to at once where there is room, as there is except for very long messages. tokio's own
/// would wait for the next round of its event loop, and by then the other side has been woken with nothing to read.
struct Socket(UnixStream);

impl Stream for Socket {
    fn peer_pid(&self) -> Option<i32> {
        self.0.peer_cred().ok()?.pid()
    }

    fn descriptor(&self) -> Option<RawFd> {
        Some(self.0.as_raw_fd())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match SockRef::from(&self.0).send_with_flags(bytes, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Pin::new(&mut self.0).poll_write(context, bytes)
            }
            done => Poll::Ready(done),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
