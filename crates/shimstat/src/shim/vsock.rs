//! Sockets into virtual machines: AF_VSOCK, and the unix sockets by which some hypervisors offer it (hybrid vsock).

use std::io;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

/// The most bytes to read of the answer to `CONNECT`. `OK`, a number of 32 bits and the end of the line are 14.
const ANSWER: usize = 64;

/// Why a hypervisor did not connect us to its guest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// So does a hypervisor whose guest does not listen at that port.
    #[error("closed the connection before it answered CONNECT")]
    Closed,
    #[error(transparent)]
    Io(io::Error),
    #[error("answered CONNECT with {0:?} instead of OK and a number")]
    Answer(String),
}

/// Connects to a port of a virtual machine. The kernel gives up after two seconds.
pub(crate) async fn connect(cid: u32, port: u32) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::VSOCK, Type::STREAM.nonblocking(), None)?;
    match socket.connect(&SockAddr::vsock(cid, port)) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    // It is only read from and written to, which is the same for sockets of every family.
    let stream = UnixStream::from_std(socket.into())?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

/// Has the hypervisor behind a hybrid socket connect us to a port of its guest: `CONNECT <port>`, then `OK <a port of the
/// host>`.
///
/// Source: Firecracker's and Cloud Hypervisor's `docs/vsock.md`; the dialers of Kata and of containerd.
pub(crate) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    port: u32,
) -> Result<(), HandshakeError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            HandshakeError::Closed
        }
        _ => HandshakeError::Io(source),
    };
    let request = format!("CONNECT {port}\n");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::with_capacity(ANSWER);
    // Byte by byte: what comes after the line is the guest's.
    loop {
        let byte = stream.read_u8().await.map_err(failed)?;
        if byte == b'\n' && answer.starts_with(b"OK ") {
            return Ok(());
        }
        answer.push(byte);
        if byte == b'\n' || answer.len() >= ANSWER {
            return Err(HandshakeError::Answer(
                String::from_utf8_lossy(&answer).into_owned(),
            ));
        }
    }
}
