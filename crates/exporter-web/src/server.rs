//! HTTP/1.1 for clients that may be slow or hostile.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::body::Answer;
use crate::connections::Connections;
use crate::listen::{Listener, Socket};
use crate::patience::{Answering, Patience, Patient, Progress};
use crate::protection::{Protection, Refusal};

/// A scraper has one connection, or two; people have a few.
pub const MOST_CONNECTIONS: usize = 256;

/// A request head of Prometheus has 300 bytes, a browser's with cookies a few thousand.
const MOST_HEAD: usize = 16 << 10;
const MOST_HEADERS: usize = 100;

/// How long the answers that are being given may take when the program is told to end.
const FAREWELL: Duration = Duration::from_secs(10);

/// After an error that says that something is used up.
const PAUSE: Duration = Duration::from_millis(100);

/// What answers the requests that are admitted.
pub trait App: Send + Sync + 'static {
    /// Answers a request. What it holds is let go with the answer's body.
    fn answer(
        &self,
        request: Request<Incoming>,
        answering: Answering,
        progress: &Progress,
    ) -> impl Future<Output = Response<Answer>> + Send;
}

/// An app behind what protects it.
struct Site<A> {
    protection: Protection,
    app: A,
}

impl<A: App> Site<A> {
    async fn answer(
        &self,
        request: Request<Incoming>,
        answering: Answering,
        progress: &Progress,
    ) -> Response<Answer> {
        let mut response = match self.protection.admit(request.headers()).await {
            Ok(()) => self.app.answer(request, answering, progress).await,
            Err(refusal) => refused(refusal, answering),
        };
        for (name, value) in self.protection.headers() {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// Serves until the program is told to end (SIGTERM, SIGINT); then no more connections are accepted, what is
/// being answered is, and the socket's file is gone. A second signal ends it at once.
pub async fn serve(
    listener: Listener,
    protection: Protection,
    connections: Connections,
    app: impl App,
) -> io::Result<()> {
    let app = Arc::new(Site { protection, app });
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (ending, _) = watch::channel(false);
    loop {
        let socket = tokio::select! {
            socket = accept(&listener, &connections) => socket,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        let progress = Progress::new();
        let place = connections.add(progress.clone());
        let number = place.number;
        let (app, mut ending) = (app.clone(), ending.subscribe());
        let task = tokio::spawn(async move {
            let socket = Patient::new(socket, progress.clone(), Patience::default());
            // The client has gone, or did not keep to the protocol: there is nobody to tell.
            let _ = connection(socket, progress, app, &mut ending).await;
            drop(place);
        });
        connections.served_by(number, task.abort_handle());
    }
    drop(listener);
    let _ = ending.send(true);
    connections.close_idle();
    tokio::select! {
        _ = tokio::time::timeout(FAREWELL, connections.ended()) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// The next connection for which there is room.
async fn accept(listener: &Listener, connections: &Connections) -> Socket {
    loop {
        connections.room().await;
        match listener.accept().await {
            Ok(socket) => return socket,
            // The client has gone already, or descriptors are used up: the next try may go well.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Serves one connection to its end.
async fn connection(
    socket: Patient<Socket>,
    progress: Progress,
    app: Arc<Site<impl App>>,
    ending: &mut watch::Receiver<bool>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    #[cfg(feature = "web-config")]
    if app.protection.has_tls() {
        let acceptor = app
            .protection
            .acceptor()
            .ok_or("the web config file cannot be used")?;
        let socket = acceptor.accept(socket).await?;
        return Ok(requests(socket, progress, app, ending).await?);
    }
    Ok(requests(socket, progress, app, ending).await?)
}

async fn requests(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    progress: Progress,
    app: Arc<Site<impl App>>,
    ending: &mut watch::Receiver<bool>,
) -> hyper::Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        let (app, answering, progress) = (app.clone(), progress.answering(), progress.clone());
        async move { Ok::<_, Infallible>(app.answer(request, answering, &progress).await) }
    });
    let connection = http1::Builder::new()
        // The stream has deadlines of its own, also between requests.
        .header_read_timeout(None)
        .max_header_size(MOST_HEAD)
        .max_headers(MOST_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        result = &mut connection => return result,
        _ = ending.wait_for(|ending| *ending) => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

fn refused(refusal: Refusal, answering: Answering) -> Response<Answer> {
    let (status, line) = match refusal {
        Refusal::Unauthorized => (StatusCode::UNAUTHORIZED, "Unauthorized\n"),
        Refusal::TooManyRequests => (StatusCode::TOO_MANY_REQUESTS, "Too Many Requests\n"),
        Refusal::Busy => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many passwords are being checked\n",
        ),
        Refusal::Broken => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "The web config file cannot be used\n",
        ),
    };
    let mut response = Response::new(Answer::whole(line, answering));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if refusal == Refusal::Unauthorized {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
    }
    response
}
