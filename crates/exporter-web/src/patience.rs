//! How long a connection may wait for its client.
//!
//! A client that sends its request byte by byte, that is silent, or that does not take its answer holds a
//! descriptor, and in the last case the answer's pages too. So every wait for a client has an end, and it is known
//! how long it has lasted: where room is needed, who has waited longest goes first.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long is waited for what.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a whole request head, and for a TLS handshake before it.
    pub request: Duration,
    /// For the next request. Prometheus keeps its connection from scrape to scrape.
    pub idle: Duration,
    /// For the client to take any byte of its answer.
    pub stall: Duration,
    /// For the client to have taken all of its answer, from the request on. A scrape is over by then.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            stall: Duration::from_secs(10),
            answer: Duration::from_secs(120),
        }
    }
}

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A request is being sent, since then.
    Request(Instant),
    /// The last one is answered, since then, and no other has begun.
    Idle(Instant),
    /// A request is being answered, since then.
    Answer(Instant),
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Since when the client takes nothing of what there is for it.
    blocked: Option<Instant>,
    holds_pages: bool,
}

/// What a connection is at. Clones are the same connection's.
#[derive(Debug, Clone)]
pub struct Progress(Arc<Mutex<State>>);

impl Progress {
    /// That of a connection which has just been accepted.
    #[allow(clippy::new_without_default)] // "Now" is no default.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            phase: Phase::Request(Instant::now()),
            blocked: None,
            holds_pages: false,
        })))
    }

    /// Notes that a request has come in whole. The client is waited for again when the guard is dropped.
    pub fn answering(&self) -> Answering {
        self.state().phase = Phase::Answer(Instant::now());
        Answering(self.clone())
    }

    /// Notes that the answer holds the pages of a scrape, until it is over.
    pub fn hold_pages(&self) {
        self.state().holds_pages = true;
    }

    pub fn holds_pages(&self) -> bool {
        self.state().holds_pages
    }

    /// Since when nothing happens for want of the client; `None` while it is we who are at work.
    pub fn waiting_since(&self) -> Option<Instant> {
        let state = self.state();
        match state.phase {
            Phase::Request(since) | Phase::Idle(since) => Some(since),
            Phase::Answer(_) => state.blocked,
        }
    }

    /// Whether a request is being answered.
    pub fn is_answering(&self) -> bool {
        matches!(self.state().phase, Phase::Answer(_))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lives as long as a request is being answered.
#[derive(Debug)]
pub struct Answering(Progress);

impl Drop for Answering {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.phase = Phase::Idle(Instant::now());
        state.holds_pages = false;
    }
}

/// A client's stream on which every wait has an end.
pub struct Patient<S> {
    stream: S,
    progress: Progress,
    patience: Patience,
    reading: Alarm,
    writing: Alarm,
}

impl<S> Patient<S> {
    pub fn new(stream: S, progress: Progress, patience: Patience) -> Self {
        Self {
            stream,
            progress,
            patience,
            reading: Alarm(None),
            writing: Alarm(None),
        }
    }

    /// When the wait for more of a request ends; never while one is being answered.
    fn read_deadline(&self) -> Option<Instant> {
        match self.progress.state().phase {
            Phase::Request(since) => since.checked_add(self.patience.request),
            Phase::Idle(since) => since.checked_add(self.patience.idle),
            Phase::Answer(_) => None,
        }
    }

    /// When the wait for the client to take more ends.
    fn write_deadline(&self) -> Instant {
        let mut state = self.progress.state();
        let stalled = *state.blocked.get_or_insert_with(Instant::now) + self.patience.stall;
        match state.phase {
            Phase::Answer(since) => stalled.min(since + self.patience.answer),
            _ => stalled,
        }
    }

    /// What came of a write, where it is the client's time that it takes.
    fn written(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if result.is_ready() {
            self.progress.state().blocked = None;
            return result;
        }
        let deadline = self.write_deadline();
        match self.writing.is_due(deadline, cx) {
            true => Poll::Ready(Err(timed_out("the client does not take its answer"))),
            false => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, into);
        if result.is_ready() {
            let mut state = self.progress.state();
            if into.filled().len() > before && matches!(state.phase, Phase::Idle(_)) {
                state.phase = Phase::Request(Instant::now());
            }
            return result;
        }
        match self.read_deadline() {
            Some(deadline) if self.reading.is_due(deadline, cx) => {
                Poll::Ready(Err(timed_out("the client sends no request")))
            }
            _ => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn timed_out(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, text)
}

/// A timer that is made when it is first needed.
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Whether it is past the deadline. If not, the task is woken then.
    fn is_due(&mut self, deadline: Instant, cx: &mut Context<'_>) -> bool {
        let sleep = self
            .0
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(cx).is_ready()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(60);

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(future)
    }

    fn patience() -> Patience {
        Patience {
            request: LONG,
            idle: LONG,
            stall: LONG,
            answer: LONG,
        }
    }

    #[test]
    fn a_request_has_its_time_from_the_first_byte_to_the_last() {
        block_on(async {
            let (mut client, server) = duplex(64);
            let patience = Patience {
                request: SHORT,
                ..patience()
            };
            let mut server = Patient::new(server, Progress::new(), patience);
            let mut buffer = [0; 64];
            for _ in 0..3 {
                client.write_all(b"G").await.unwrap();
                server.read_exact(&mut buffer[..1]).await.unwrap();
                tokio::time::sleep(SHORT / 4).await;
            }
            let error = server.read(&mut buffer).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn between_requests_there_is_more_time_and_during_one_there_is_no_end() {
        block_on(async {
            let (mut client, server) = duplex(64);
            let progress = Progress::new();
            let patience = Patience {
                request: SHORT,
                idle: SHORT * 10,
                ..patience()
            };
            let mut server = Patient::new(server, progress.clone(), patience);
            let mut buffer = [0; 64];
            client.write_all(b"GET").await.unwrap();
            server.read_exact(&mut buffer[..3]).await.unwrap();
            let answering = progress.answering();
            assert!(progress.is_answering() && progress.waiting_since().is_none());
            // hyper reads on while it answers, to hear of the client's leaving.
            let read = tokio::time::timeout(SHORT * 100, server.read(&mut buffer)).await;
            assert!(read.is_err(), "no end while a request is answered");
            drop(answering);
            let read = tokio::time::timeout(SHORT * 9, server.read(&mut buffer)).await;
            assert!(read.is_err(), "kept for the next request");
            assert!(progress.waiting_since().is_some());
            let read = tokio::time::timeout(SHORT * 2, server.read(&mut buffer)).await;
            assert_eq!(read.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn who_does_not_take_its_answer_is_given_up() {
        block_on(async {
            let (client, server) = duplex(64);
            let progress = Progress::new();
            let patience = Patience {
                stall: SHORT,
                ..patience()
            };
            let mut server = Patient::new(server, progress.clone(), patience);
            let _answering = progress.answering();
            let started = tokio::time::Instant::now();
            let error = server.write_all(&[0; 1000]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(started.elapsed() < SHORT * 2);
            assert!(progress.waiting_since().is_some());
            drop(client);
        });
    }

    #[test]
    fn who_takes_its_answer_drop_by_drop_is_given_up_as_well() {
        block_on(async {
            let (mut client, server) = duplex(64);
            let progress = Progress::new();
            let patience = Patience {
                stall: SHORT,
                answer: SHORT * 20,
                ..patience()
            };
            let mut server = Patient::new(server, progress.clone(), patience);
            let _answering = progress.answering();
            let started = tokio::time::Instant::now();
            let reader = tokio::spawn(async move {
                let mut buffer = [0; 1];
                while client.read_exact(&mut buffer).await.is_ok() {
                    tokio::time::sleep(SHORT / 2).await;
                }
            });
            let error = server.write_all(&[0; 10_000]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            let took = started.elapsed();
            assert!(took > SHORT * 18 && took < SHORT * 22, "{took:?}");
            drop(server);
            reader.await.unwrap();
        });
    }

    #[test]
    fn pages_are_held_as_long_as_the_answer() {
        let progress = Progress::new();
        let answering = progress.answering();
        progress.hold_pages();
        assert!(progress.holds_pages());
        drop(answering);
        assert!(!progress.holds_pages());
    }
}
