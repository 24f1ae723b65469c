//! Connections in memory, in paused time: how long a client may take for what.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1 as client;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// Answers `/large` with some megabytes, `/slow` after a minute, and everything with what was asked.
async fn answer(request: Request) -> Response {
    match request.path() {
        "/large" => {
            request.claim_large_answer().await;
            Response::text(StatusCode::OK, vec![b'x'; 8 << 20])
        }
        "/slow" => {
            tokio::time::sleep(MINUTE).await;
            Response::text(StatusCode::OK, "slow\n")
        }
        path => Response::text(StatusCode::OK, format!("{path}\n")),
    }
}

/// A connection that is served: the client's end, and what ends with it.
async fn connect(connections: &Connections, config: Option<WebConfig>) -> (DuplexStream, JoinHandle<()>) {
    let (client, server) = duplex(64 << 10);
    let site = Arc::new(Site { config, answer });
    let place = Arc::new(connections.admit().await);
    let (number, graceful) = (place.number, GracefulShutdown::new());
    let watcher = graceful.watcher();
    let task = tokio::spawn(async move {
        // It says stop when dropped.
        let _graceful = graceful;
        tokio::select! {
            () = place.expired() => {}
            () = site.connection(Box::new(server), "a test".to_string(), &place, watcher) => {}
        }
    });
    connections.served_by(number, task.abort_handle());
    (client, task)
}

/// How many seconds until a connection is closed.
async fn closes_after(task: JoinHandle<()>) -> u64 {
    let started = Instant::now();
    let _ = task.await;
    started.elapsed().as_secs()
}

fn get(path: &str) -> hyper::Request<Empty<Bytes>> {
    let uri = format!("http://node{path}");
    hyper::Request::get(uri)
        .header("host", "node")
        .body(Empty::new())
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn silence_and_slow_heads_have_an_end() {
    let connections = Connections::new(8);
    let (_silent, task) = connect(&connections, None).await;
    assert_eq!(closes_after(task).await, 10);
    let (mut slow, task) = connect(&connections, None).await;
    let drops = tokio::spawn(async move {
        while slow.write_all(b"G").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    assert_eq!(closes_after(task).await, 10);
    drops.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_kept_for_two_minutes_and_a_slow_answer_is_waited_for() {
    let connections = Connections::new(8);
    let (client, task) = connect(&connections, None).await;
    let (mut sender, connection) = client::handshake(TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    for (path, expected, seconds) in [("/a", "/a\n", 0), ("/b", "/b\n", 0), ("/slow", "slow\n", 60)] {
        let started = Instant::now();
        let body = sender.send_request(get(path)).await.unwrap().into_body();
        let text = body.collect().await.unwrap().to_bytes();
        assert_eq!(
            (&text[..], started.elapsed().as_secs()),
            (expected.as_bytes(), seconds)
        );
        tokio::time::sleep(MINUTE).await;
    }
    assert_eq!(closes_after(task).await, 60);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_taken_has_an_end() {
    let connections = Connections::new(8);
    let (mut client, task) = connect(&connections, None).await;
    client
        .write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut some = [0; 1024];
    client.read_exact(&mut some).await.unwrap();
    assert!(some.starts_with(b"HTTP/1.1 200 OK\r\n"));
    let seconds = closes_after(task).await;
    assert!((10..=20).contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_gets_its_answer_and_one_that_sips_does_not() {
    for (bytes, pause, whole) in [(32 << 10, 250, true), (4 << 10, 1_000, false)] {
        let connections = Connections::new(8);
        let (mut client, _task) = connect(&connections, None).await;
        client
            .write_all(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let (mut buffer, mut read) = (vec![0; bytes], 0);
        while let Ok(n @ 1..) = client.read(&mut buffer).await {
            read += n;
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        assert_eq!(read > 8 << 20, whole, "{read} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_graceful_end_finishes_answers_and_closes_what_is_idle() {
    let server = Server::builder()
        .listen(["127.0.0.1:0".parse().unwrap()])
        .bind()
        .unwrap();
    let address = server.addresses().remove(0);
    let (stop, stopped) = oneshot::channel::<()>();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let counted = move |request| {
        count.fetch_add(1, Ordering::Relaxed);
        answer(request)
    };
    let serving = tokio::spawn(server.run_until(counted, async {
        let _ = stopped.await;
    }));
    let _idle = tokio::net::TcpStream::connect(&address).await.unwrap();
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    stream
        .write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    while asked.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    drop(stop);
    let mut taken = Vec::new();
    stream.read_to_end(&mut taken).await.unwrap();
    assert!(taken.len() > 8 << 20);
    serving.await.unwrap();
    assert!(tokio::net::TcpStream::connect(&address).await.is_err());
}

#[cfg(feature = "web-config")]
mod http2 {
    use hyper::client::conn::http2 as client;
    use hyper_util::rt::TokioExecutor;
    use std::path::Path;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use super::*;

    const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates");

    type Sender = client::SendRequest<Empty<Bytes>>;

    /// A client that negotiated HTTP/2, and takes 64 KiB of each answer that it does not read.
    async fn connect_http2(connections: &Connections) -> (Sender, JoinHandle<()>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.yml");
        let server = format!("{CERTIFICATES}/server");
        std::fs::write(
            &path,
            format!("tls_server_config:\n  cert_file: {server}.pem\n  key_file: {server}.key\n"),
        )
        .unwrap();
        let config = WebConfig::load(WebConfigSource::File(path), Arc::new(|_| {})).unwrap();
        // The file is not looked at again within the test's connection unless it changes, and it stays.
        let (stream, task) = connect(connections, Some(config)).await;
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(Path::new(CERTIFICATES).join("ca.pem")).unwrap();
        roots.add(ca).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap();
        let mut builder = client::Builder::new(TokioExecutor::new());
        builder
            .initial_stream_window_size(65_535)
            .initial_connection_window_size(1 << 20);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move {
            let _dir = dir;
            connection.await
        });
        (sender, task)
    }

    #[tokio::test(start_paused = true)]
    async fn several_requests_are_answered_at_once() {
        let connections = Connections::new(8);
        let (sender, task) = connect_http2(&connections).await;
        let started = Instant::now();
        let mut answers = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let mut sender = sender.clone();
            answers.spawn(async move {
                let body = sender.send_request(get("/slow")).await.unwrap().into_body();
                body.collect().await.unwrap().to_bytes()
            });
        }
        while let Some(text) = answers.join_next().await {
            assert_eq!(&text.unwrap()[..], b"slow\n");
        }
        assert_eq!(started.elapsed().as_secs(), 60);
        assert_eq!(closes_after(task).await, 120);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_taken_has_an_end_beside_others_that_are() {
        let connections = Connections::new(8);
        let (mut sender, task) = connect_http2(&connections).await;
        let stalled = sender.send_request(get("/large")).await.unwrap();
        let others = tokio::spawn(async move {
            while let Ok(answer) = sender.send_request(get("/a")).await {
                let _ = answer.into_body().collect().await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let seconds = closes_after(task).await;
        assert!((10..=20).contains(&seconds), "{seconds}");
        others.await.unwrap();
        assert!(stalled.into_body().collect().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn large_answers_of_one_connection_are_bounded_too() {
        let connections = Connections::new(2);
        let (mut sender, _task) = connect_http2(&connections).await;
        let mut stalled = Vec::new();
        for _ in 0..2 {
            stalled.push(sender.send_request(get("/large")).await.unwrap());
        }
        let (mut other, _task) = connect_http2(&connections).await;
        let started = Instant::now();
        let answer = other.send_request(get("/large")).await.unwrap();
        assert_eq!(started.elapsed().as_secs(), 1, "until those that stall make way");
        assert_eq!(
            answer.into_body().collect().await.unwrap().to_bytes().len(),
            8 << 20
        );
    }
}
