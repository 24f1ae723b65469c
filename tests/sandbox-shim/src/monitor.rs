//! The monitor socket: HTTP over a Unix socket, in the manner of Kata's Go shim or of its Rust shim.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    fs,
    io::{self, Write},
    path::Path,
    pin::Pin,
    process,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Frame, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixListener, sync::watch};

use crate::{
    agent::Agent,
    families,
    flavour::{Flavour, Kind},
    lifecycle::remove_dir,
    proc,
    spec::Spec,
};

/// Durations of calls by action, in the buckets that Kata uses.
#[derive(Default)]
pub struct Histogram(Mutex<BTreeMap<&'static str, Observed>>);

/// The calls of one action.
#[derive(Clone, Default)]
pub struct Observed {
    /// Calls that took no longer than 1, 2, 4 … 512 ms.
    pub buckets: [u64; 10],
    pub count: u64,
    pub sum_milliseconds: f64,
}

impl Histogram {
    pub fn observe(&self, action: &'static str, duration: Duration) {
        let milliseconds = duration.as_secs_f64() * 1000.0;
        let mut actions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let observed = actions.entry(action).or_default();
        let mut bound = 1.0;
        for bucket in &mut observed.buckets {
            *bucket += u64::from(milliseconds <= bound);
            bound *= 2.0;
        }
        observed.count += 1;
        observed.sum_milliseconds += milliseconds;
    }

    pub fn actions(&self) -> BTreeMap<&'static str, Observed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the shim itself takes beside the containers. Kata computes it after a scrape, for the next one.
#[derive(Clone, Copy)]
pub struct Overhead {
    pub cpu_percent: f64,
    pub memory_bytes: f64,
    measured: Instant,
    cpu_seconds: f64,
}

/// The monitor of one sandbox.
pub struct Monitor {
    sandbox: String,
    pub flavour: Flavour,
    agent_url: String,
    pub agent: Option<Arc<Agent>>,
    netns: Option<String>,
    /// The process that stands for the hypervisor; 0 while there is none.
    vmm: AtomicU32,
    pub scrapes: AtomicU64,
    /// Calls of the task service.
    pub rpcs: Histogram,
    /// Calls of runc, which does here what the agent does in a guest.
    pub agent_rpcs: Histogram,
    overhead: Mutex<Overhead>,
    stop: watch::Sender<bool>,
}

impl Monitor {
    /// Binds the socket, tells the bundle about it as the flavour does, and serves in the background.
    pub fn start(
        sandbox: &str,
        bundle: &Path,
        spec: &Spec,
        agent_url: String,
        agent: Option<Arc<Agent>>,
    ) -> io::Result<Arc<Self>> {
        let flavour = Flavour::of(spec);
        let directory = flavour.directory(sandbox);
        remove_dir(&directory)?;
        fs::create_dir_all(&directory)?;
        let socket = flavour.monitor_socket(sandbox);
        let listener = UnixListener::bind(&socket)?;
        if flavour.kind == Kind::Go {
            fs::write(
                bundle.join("monitor_address"),
                format!("unix://{}", socket.display()),
            )?;
        }
        let overhead = Overhead {
            cpu_percent: 0.0,
            memory_bytes: 0.0,
            measured: Instant::now(),
            cpu_seconds: 0.0,
        };
        let monitor = Arc::new(Self {
            sandbox: sandbox.to_owned(),
            flavour,
            agent_url,
            agent,
            netns: spec.netns().map(str::to_owned),
            vmm: AtomicU32::new(0),
            scrapes: AtomicU64::new(0),
            rpcs: Histogram::default(),
            agent_rpcs: Histogram::default(),
            overhead: Mutex::new(overhead),
            stop: watch::Sender::new(false),
        });
        tokio::spawn(accept(listener, monitor.clone()));
        Ok(monitor)
    }

    pub fn sandbox(&self) -> &str {
        &self.sandbox
    }

    /// The process that stands for the hypervisor, while it runs.
    pub fn vmm(&self) -> Option<u32> {
        Some(self.vmm.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    pub fn overhead(&self) -> Overhead {
        *self.overhead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn sandbox_created(&self, pid: u32) -> io::Result<()> {
        self.vmm.store(pid, Ordering::Relaxed);
        self.flavour
            .record(&self.sandbox, pid, &self.agent_url, self.netns.as_deref())
    }

    /// Kata's Go shim takes its socket away when the sandbox stops; its Rust shim goes on with what it knows
    /// about itself, until the sandbox is deleted.
    pub fn sandbox_stopped(&self) -> io::Result<()> {
        self.vmm.store(0, Ordering::Relaxed);
        if self.flavour.kind == Kind::Go {
            self.stop()
        } else {
            Ok(())
        }
    }

    pub fn stop(&self) -> io::Result<()> {
        self.stop.send_replace(true);
        remove_dir(&self.flavour.directory(&self.sandbox))
    }

    fn measure_overhead(&self) {
        let mut cpu_seconds = 0.0;
        let mut memory_bytes = 0.0;
        for pid in [Some(process::id()), self.vmm()].into_iter().flatten() {
            cpu_seconds += proc::cpu_seconds(pid).unwrap_or(0.0);
            memory_bytes += proc::status(pid)
                .get("vmrss")
                .map_or(0.0, |kilobytes| kilobytes * 1024.0);
        }
        let mut overhead = self.overhead.lock().unwrap_or_else(PoisonError::into_inner);
        let wall = overhead.measured.elapsed().as_secs_f64();
        let cpu_percent = (cpu_seconds - overhead.cpu_seconds) / wall * 100.0;
        *overhead = Overhead {
            cpu_percent,
            memory_bytes,
            measured: Instant::now(),
            cpu_seconds,
        };
    }
}

async fn accept(listener: UnixListener, monitor: Arc<Monitor>) {
    let mut stop = monitor.stop.subscribe();
    loop {
        let connection = tokio::select! {
            connection = listener.accept() => connection,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let Ok((stream, _)) = connection else { continue };
        let monitor = monitor.clone();
        let answer = service_fn(move |request| {
            let monitor = monitor.clone();
            async move { Ok::<_, Infallible>(answer(&monitor, &request)) }
        });
        // A client that goes away in the middle is its own affair.
        tokio::spawn(async move {
            http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await
                .ok()
        });
    }
}

type Reply = Response<Either<Full<Bytes>, Chunks>>;

fn answer(monitor: &Monitor, request: &Request<Incoming>) -> Reply {
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n".to_owned());
    }
    if let Some(agent) = &monitor.agent {
        agent.note(&format!("monitor {}", request.uri().path()));
    }
    match request.uri().path() {
        "/metrics" => metrics(monitor),
        "/agent-url" => text(StatusCode::OK, monitor.agent_url.clone()),
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    }
}

fn metrics(monitor: &Monitor) -> Reply {
    if monitor.flavour.dies_when_asked() {
        eprintln!(
            "not yet implemented: metrics of the hypervisor {}",
            monitor.flavour.hypervisor
        );
        io::stderr().flush().ok();
        process::abort();
    }
    monitor.scrapes.fetch_add(1, Ordering::Relaxed);
    let page = families::page(monitor);
    monitor.measure_overhead();
    match monitor.flavour.kind {
        Kind::Go => {
            let mut reply = Response::new(Either::Right(Chunks::of(page)));
            reply.headers_mut().insert(
                CONTENT_TYPE,
                HeaderValue::from_static("text/plain; charset=utf-8"),
            );
            reply
        }
        Kind::Rust => text(StatusCode::OK, page),
    }
}

fn text(status: StatusCode, body: String) -> Reply {
    let mut reply = Response::new(Either::Left(Full::new(Bytes::from(body))));
    *reply.status_mut() = status;
    reply
}

/// A body of unknown length, so that it is sent chunked, in pieces as Go's HTTP server sends them.
struct Chunks(VecDeque<Bytes>);

impl Chunks {
    fn of(text: String) -> Self {
        let mut rest = Bytes::from(text);
        let mut pieces = VecDeque::new();
        while !rest.is_empty() {
            pieces.push_back(rest.split_to(rest.len().min(4096)));
        }
        Self(pieces)
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_in_every_bucket_that_holds_it() {
        let histogram = Histogram::default();
        histogram.observe("state", Duration::from_micros(300));
        histogram.observe("state", Duration::from_millis(5));
        histogram.observe("state", Duration::from_secs(1));
        let observed = histogram.actions().remove("state").unwrap();
        // 1, 2, 4 ms hold the first call, 8 ms and above the first two, none the third.
        assert_eq!(observed.buckets, [1, 1, 1, 2, 2, 2, 2, 2, 2, 2]);
        assert_eq!(observed.count, 3);
        assert!((observed.sum_milliseconds - 1005.3).abs() < 1e-6);
    }
}
