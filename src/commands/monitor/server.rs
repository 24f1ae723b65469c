//! HTTP/1.1 for clients that may be slow or hostile.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::app::App;
use super::connections::Connections;
use super::listen::{Listener, Socket};
use super::patience::{Patience, Patient, Progress};

/// A scraper has one connection, or two; people have a few.
pub const MOST_CONNECTIONS: usize = 256;

/// A request head of Prometheus has 300 bytes, a browser's with cookies a few thousand.
const MOST_HEAD: usize = 16 << 10;
const MOST_HEADERS: usize = 100;

/// How long the answers that are being given may take when the program is told to end.
const FAREWELL: Duration = Duration::from_secs(10);

/// After an error that says that something is used up.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until the program is told to end (SIGTERM, SIGINT); then no more connections are accepted, what is
/// being answered is, and the socket's file is gone. A second signal ends it at once.
pub async fn serve(listener: Listener, app: Arc<App>) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (ending, _) = watch::channel(false);
    let connections = app.connections().clone();
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
    app: Arc<App>,
    ending: &mut watch::Receiver<bool>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    #[cfg(feature = "web-config")]
    if app.protection().has_tls() {
        let acceptor = app
            .protection()
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
    app: Arc<App>,
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
