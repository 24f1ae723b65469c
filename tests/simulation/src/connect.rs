//! Connections to simulated sandboxes, in memory. They are counted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use shimstat::guest::{ConnectGuest, ConnectingGuest, GuestAddress, GuestError};
use shimstat::shim::address::Address;
use shimstat::shim::{Connect, Connecting, Connection, ShimError, Stream};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::mood::Mood;
use crate::record::Record;
use crate::sandbox::{Sandbox, Slot};
use crate::{agent, monitor, place, shim};

/// All sandboxes of the simulated node.
pub struct Node(pub Vec<Arc<Sandbox>>);

/// The client's end of a connection.
struct ClientEnd {
    stream: DuplexStream,
    /// A call that ends with the connection.
    slot: Slot,
    record: Arc<Record>,
}

impl Drop for ClientEnd {
    fn drop(&mut self) {
        self.record.connections.fetch_sub(1, Ordering::Relaxed);
        let pending = self.slot.lock().unwrap().take();
        if let Some(pending) = pending {
            pending.give_up();
        }
    }
}

impl Stream for ClientEnd {
    fn peer_pid(&self) -> Option<i32> {
        None
    }
}

impl AsyncRead for ClientEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for ClientEnd {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Node {
    /// A connection to a sandbox, and the other end of it; an error where nobody listens.
    async fn connect(sandbox: &Arc<Sandbox>) -> io::Result<(Connection, DuplexStream, Slot)> {
        // A full backlog: the client gives up, or is taken in the end.
        sandbox.moods.wait_for(|mood| mood != Mood::Backlog).await;
        sandbox.connect_ends();
        if sandbox.mood() == Mood::Gone {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let slot = Slot::default();
        sandbox.record.connections.fetch_add(1, Ordering::Relaxed);
        let end = ClientEnd {
            stream: ours,
            slot: slot.clone(),
            record: sandbox.record.clone(),
        };
        Ok((Box::new(end), theirs, slot))
    }
}

/// A connect to a guest, which has a time of its own: its end is noted where it is given up, too.
struct Ends<'a>(&'a Arc<Sandbox>);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.connect_ends();
    }
}

impl Connect for Node {
    fn connect<'a>(&'a self, address: &'a Address) -> Connecting<'a> {
        Box::pin(async move {
            let address_text = address.to_string();
            let failed = |source| ShimError::Connect {
                address: address.clone(),
                source,
            };
            for sandbox in &self.0 {
                if address_text == place::shim_path(sandbox.index).to_string_lossy() {
                    let (ours, theirs, _) = Self::connect(sandbox).await.map_err(failed)?;
                    tokio::spawn(shim::serve(theirs, sandbox.clone()));
                    return Ok(ours);
                }
                if address_text == place::monitor_path(sandbox.index) {
                    let (ours, theirs, slot) = Self::connect(sandbox).await.map_err(failed)?;
                    tokio::spawn(monitor::serve(theirs, sandbox.clone(), slot));
                    return Ok(ours);
                }
            }
            panic!("nobody is simulated at {address_text}");
        })
    }
}

impl ConnectGuest for Node {
    fn connect<'a>(&'a self, address: &'a GuestAddress, sandbox: &'a str) -> ConnectingGuest<'a> {
        Box::pin(async move {
            let asked = self.0.iter().find(|one| one.id(0) == sandbox).unwrap();
            if address.to_string() != agent::url(asked.index) {
                asked
                    .record
                    .finding(format!("the guest at {address} was taken for {sandbox}'s"));
            }
            let _ends = Ends(asked);
            let (ours, theirs, slot) = Self::connect(asked).await.map_err(|source| GuestError::Connect {
                address: address.clone(),
                source,
            })?;
            tokio::spawn(agent::serve(theirs, asked.clone(), slot));
            Ok(ours)
        })
    }
}
