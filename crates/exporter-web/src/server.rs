//! Accepts connections, and answers requests until told to stop.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::address::ListenAddress;
use crate::connections::{Answering, Connections, Place};
use crate::error::{Error, Event};
use crate::listen::{Listener, Listeners, Stream};
use crate::protection::{Events, Handshake, Refusal, TlsFiles, WebConfigSource};
use crate::request::{Request, accepts_gzip};
use crate::response::{Response, Sent};
use crate::web_config::WebConfig;

/// A request head of Prometheus has 300 bytes, a browser's with cookies a few thousand.
const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 100;

/// What hyper may buffer of a connection. Its default of 400 KiB would be 100 MiB for 256 clients that do not read.
const MAX_BUFFER: usize = 128 << 10;

/// Requests at once on one HTTP/2 connection. Prometheus has one.
#[cfg(feature = "web-config")]
const MAX_STREAMS: u32 = 8;

#[cfg(feature = "web-config")]
const HTTP2_WINDOW: u32 = 65_535;

/// A thousand sandboxes are a page of 118 MB, made from 60 MB that are held meanwhile.
const MAX_LARGE_ANSWERS: usize = 8;

/// How long answers that are being made or sent may take once the server is told to stop. Most take less than a second;
/// what waits for somebody who hangs is not worth waiting for.
const FAREWELL: Duration = Duration::from_secs(3);

/// After an accept that failed, for example because descriptors are used up.
const PAUSE: Duration = Duration::from_millis(100);

/// What to serve, and where.
pub struct Builder {
    addresses: Vec<ListenAddress>,
    systemd_socket: bool,
    web_config_file: Option<PathBuf>,
    tls_files: Option<TlsFiles>,
    max_large_answers: usize,
    events: Events,
}

impl Builder {
    /// Adds addresses to listen on.
    #[must_use]
    pub fn listen(mut self, addresses: impl IntoIterator<Item = ListenAddress>) -> Self {
        self.addresses.extend(addresses);
        self
    }

    /// Listens on the sockets that systemd passes (socket activation) instead of the addresses.
    #[must_use]
    pub fn systemd_socket(mut self, activated: bool) -> Self {
        self.systemd_socket = activated;
        self
    }

    /// Takes TLS, passwords, headers and a rate limit from a file in the format of Prometheus's own exporters. It is
    /// read again when it changes.
    #[must_use]
    pub fn web_config_file(mut self, path: Option<PathBuf>) -> Self {
        self.web_config_file = path;
        self
    }

    /// Serves HTTPS without a web config file; with one, what that says holds.
    #[must_use]
    pub fn tls_files(mut self, files: Option<TlsFiles>) -> Self {
        self.tls_files = files;
        self
    }

    /// How many answers for which [`Request::claim_large_answer`] was called are sent at the same time (8).
    #[must_use]
    pub fn max_large_answers(mut self, max: usize) -> Self {
        self.max_large_answers = max;
        self
    }

    /// What is done with what an operator should read: where the server listens, warnings, refusals. The function is
    /// called on the server's own threads, and should return soon.
    #[must_use]
    pub fn on_event(mut self, handle: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.events = Arc::new(handle);
        self
    }

    /// Reads the web config file and listens. Needs tokio's runtime, with I/O and time enabled.
    pub fn bind(self) -> Result<Server, Error> {
        let events = self.events;
        let source = self
            .web_config_file
            .map(WebConfigSource::File)
            .or(self.tls_files.map(WebConfigSource::Tls));
        let config = source
            .map(|source| WebConfig::load(source, events.clone()))
            .transpose()?;
        let listeners = match self.systemd_socket {
            true => Listener::from_systemd()?,
            false => self.addresses.iter().map(bind).collect::<Result<_, _>>()?,
        };
        if listeners.is_empty() {
            return Err(Error::NoAddress);
        }
        let server = Server {
            listeners,
            config,
            connections: Connections::new(self.max_large_answers),
            events,
        };
        server.announce();
        Ok(server)
    }
}

fn bind(address: &ListenAddress) -> Result<Listener, Error> {
    Listener::bind(address).map_err(|source| Error::Listen {
        address: address.to_string(),
        source,
    })
}

/// A server that listens, and has not begun to accept.
pub struct Server {
    listeners: Vec<Listener>,
    config: Option<WebConfig>,
    connections: Connections,
    events: Events,
}

impl Server {
    /// Begins to describe a server.
    pub fn builder() -> Builder {
        Builder {
            addresses: Vec::new(),
            systemd_socket: false,
            web_config_file: None,
            tls_files: None,
            max_large_answers: MAX_LARGE_ANSWERS,
            events: Arc::new(|_| {}),
        }
    }

    /// Where it listens: `127.0.0.1:9100`, `unix:///run/exporter.sock`. A port that was given as 0 is the one that
    /// the system has chosen.
    pub fn addresses(&self) -> Vec<String> {
        self.listeners.iter().map(Listener::address).collect()
    }

    fn announce(&self) {
        let tls = self.config.as_ref().is_some_and(WebConfig::has_tls);
        let passwords = self.config.as_ref().is_some_and(WebConfig::has_passwords);
        for listener in &self.listeners {
            let address = listener.address();
            let url = match (listener, tls) {
                (Listener::Unix { .. }, _) => address,
                (Listener::Tcp(_), true) => format!("https://{address}/metrics"),
                (Listener::Tcp(_), false) => format!("http://{address}/metrics"),
            };
            (self.events)(Event::Listening { url });
        }
        for listener in self
            .listeners
            .iter()
            .filter(|listener| listener.is_public() && !tls)
        {
            let address = listener.address();
            (self.events)(match passwords {
                true => Event::ClearPasswords { address },
                false => Event::Unprotected { address },
            });
        }
        if let Some(config) = &self.config {
            config.announce();
        }
    }

    /// Answers requests until SIGTERM or SIGINT; then, no connection is accepted any more, and what is being answered
    /// has three seconds to be taken. A second signal ends it at once.
    pub async fn run<A, F>(self, answer: A) -> Result<(), Error>
    where
        A: Fn(Request) -> F + Send + Sync + 'static,
        F: Future<Output = Response> + Send + 'static,
    {
        let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = self.run_until(answer, async {
            let _ = stopped.await;
        });
        tokio::pin!(serving);
        let mut stop = Some(stop);
        loop {
            tokio::select! {
                () = &mut serving => return Ok(()),
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            // Dropping it says stop; where it is gone, this is the second signal.
            if stop.take().is_none() {
                return Ok(());
            }
        }
    }

    /// The same, until a future of your own is ready.
    pub async fn run_until<A, F>(self, answer: A, stop: impl Future<Output = ()>)
    where
        A: Fn(Request) -> F + Send + Sync + 'static,
        F: Future<Output = Response> + Send + 'static,
    {
        let Self {
            listeners,
            config,
            connections,
            ..
        } = self;
        let site = Arc::new(Site { config, answer });
        let graceful = GracefulShutdown::new();
        let mut listeners = Listeners::new(listeners);
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = listeners.accept() => accepted,
                () = &mut stop => break,
            };
            let Ok((stream, peer)) = accepted else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let place = tokio::select! {
                place = connections.admit() => Arc::new(place),
                () = &mut stop => break,
            };
            let (number, site, watcher) = (place.number, site.clone(), graceful.watcher());
            let task = tokio::spawn(async move {
                tokio::select! {
                    () = place.expired() => {}
                    () = site.connection(stream, peer, &place, watcher) => {}
                }
            });
            connections.served_by(number, task.abort_handle());
        }
        drop(listeners);
        connections.close_idle();
        let _ = tokio::time::timeout(FAREWELL, graceful.shutdown()).await;
    }
}

/// What answers requests, behind what protects it.
struct Site<A> {
    config: Option<WebConfig>,
    answer: A,
}

impl<A, F> Site<A>
where
    A: Fn(Request) -> F + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    /// Serves one connection to its end.
    async fn connection(self: Arc<Self>, stream: Stream, peer: String, place: &Arc<Place>, watcher: Watcher) {
        let (stream, http2) = match &self.config {
            Some(config) => match config.handshake(stream).await {
                Handshake::Done { stream, http2 } => (stream, http2),
                Handshake::Refused(reason) => return config.refused(peer, reason),
                Handshake::Gone => return,
            },
            None => (stream, false),
        };
        let place = place.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let (site, answering) = (self.clone(), Arc::new(place.answering()));
            async move { Ok::<_, Infallible>(site.answer(request, answering).await) }
        });
        let stream = TokioIo::new(stream);
        // An error says that the client has gone or does not keep to the protocol: there is nobody to tell.
        #[cfg(feature = "web-config")]
        if http2 {
            let connection = http2_builder().serve_connection(stream, service);
            let _ = watcher.watch(connection).await;
            return;
        }
        debug_assert!(!http2);
        let connection = http1::Builder::new()
            // The connection has deadlines of its own, which know of answers as well.
            .header_read_timeout(None)
            .max_header_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_BUFFER)
            .serve_connection(stream, service);
        let _ = watcher.watch(connection).await;
    }

    async fn answer(
        &self,
        request: hyper::Request<Incoming>,
        answering: Arc<Answering>,
    ) -> hyper::Response<Sent> {
        let (parts, _) = request.into_parts();
        let gzip = accepts_gzip(&parts.headers);
        let admitted = match &self.config {
            Some(config) => config.admit(&parts.headers).await,
            None => Ok(()),
        };
        let response = match admitted {
            Err(refusal) => refused(refusal),
            Ok(()) if !matches!(parts.method, Method::GET | Method::HEAD) => method_not_allowed(),
            Ok(()) => (self.answer)(Request::new(parts, answering.clone())).await,
        };
        let mut response = response.into_http(gzip, answering);
        if let Some(config) = &self.config {
            response.headers_mut().extend(config.headers());
        }
        response
    }
}

/// HTTP/2 within the bounds of HTTP/1.
#[cfg(feature = "web-config")]
fn http2_builder() -> hyper::server::conn::http2::Builder<hyper_util::rt::TokioExecutor> {
    let mut builder = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .max_send_buf_size(MAX_BUFFER / MAX_STREAMS as usize)
        // Bodies of requests are not read: what may be on its way is the least that the protocol allows.
        .initial_connection_window_size(HTTP2_WINDOW)
        .initial_stream_window_size(HTTP2_WINDOW);
    builder
}

fn method_not_allowed() -> Response {
    Response::text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n")
        .with_header(ALLOW, HeaderValue::from_static("GET, HEAD"))
}

fn refused(refusal: Refusal) -> Response {
    match refusal {
        Refusal::Unauthorized => Response::text(StatusCode::UNAUTHORIZED, "Unauthorized\n")
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Basic")),
        Refusal::TooManyRequests => Response::text(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests\n"),
        Refusal::Busy => Response::text(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many passwords are being checked\n",
        ),
        Refusal::Broken => Response::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the web config file cannot be used\n",
        ),
    }
}

#[cfg(test)]
mod tests;
