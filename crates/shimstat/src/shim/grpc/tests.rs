use super::*;
use proptest::prelude::*;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, DuplexStream};

const TIMEOUT: Duration = Duration::from_millis(1500);

/// What a server sends: headers, frames of the body, trailers.
#[derive(Clone)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    frames: Vec<Vec<u8>>,
    trailers: Vec<(&'static str, &'static str)>,
}

impl Answer {
    fn of(frames: &[&[u8]]) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type", "application/grpc")],
            frames: frames.iter().map(|frame| frame.to_vec()).collect(),
            trailers: vec![("grpc-status", "0")],
        }
    }
}

/// Answers every call on a connection, and says what it was.
async fn serve(stream: DuplexStream, answer: Answer, asked: tokio::sync::mpsc::UnboundedSender<String>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(request) = connection.accept().await {
        let (request, mut respond) = request.unwrap();
        let (answer, asked) = (answer.clone(), asked.clone());
        tokio::spawn(async move {
            let (head, mut body) = request.into_parts();
            let mut message = Vec::new();
            while let Some(frame) = body.data().await {
                message.extend_from_slice(&frame.unwrap());
            }
            let timeout = head.headers["grpc-timeout"].to_str().unwrap();
            asked
                .send(format!("{} {timeout} {message:?}", head.uri.path()))
                .unwrap();
            let mut response = http::Response::builder().status(answer.status);
            for (name, value) in answer.headers {
                response = response.header(name, value);
            }
            let is_all = answer.frames.is_empty() && answer.trailers.is_empty();
            let mut send = respond.send_response(response.body(()).unwrap(), is_all).unwrap();
            if is_all {
                return;
            }
            for frame in answer.frames {
                send.send_data(frame.into(), false).unwrap();
            }
            let mut trailers = HeaderMap::new();
            for (name, value) in answer.trailers {
                trailers.insert(name, value.parse().unwrap());
            }
            send.send_trailers(trailers).unwrap();
        });
    }
}

fn call(limit: usize) -> Call<'static> {
    Call {
        service: "containerd.task.v3.Task",
        method: "State",
        payload: b"abc",
        timeout: TIMEOUT,
        limit,
    }
}

async fn answered(answer: Answer) -> Result<Vec<u8>, CallError> {
    let (client, server) = tokio::io::duplex(64 << 10);
    let (asked, _log) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(serve(server, answer, asked));
    GrpcClient::begin(client).await?.call(call(100)).await
}

#[tokio::test]
async fn calls_follow_each_other_on_a_connection() {
    let (client, server) = tokio::io::duplex(64 << 10);
    let (asked, mut log) = tokio::sync::mpsc::unbounded_channel();
    // In pieces, as a server may send it.
    let answer = Answer::of(&[&[0, 0, 0], &[0, 4, 1, 2], &[], &[3, 4]]);
    tokio::spawn(serve(server, answer, asked));
    let mut client = GrpcClient::begin(client).await.unwrap();
    for _ in 0..3 {
        assert_eq!(client.call(call(100)).await.unwrap(), [1, 2, 3, 4]);
        let seen = log.recv().await.unwrap();
        assert_eq!(
            seen,
            "/containerd.task.v3.Task/State 1500m [0, 0, 0, 0, 3, 97, 98, 99]"
        );
    }
}

#[tokio::test]
async fn a_long_answer_needs_room_that_is_given_back() {
    // More than the connection's window.
    let message = vec![7; 300 << 10];
    let prefixed = with_prefix(&message).unwrap();
    let (client, server) = tokio::io::duplex(64 << 10);
    let (asked, _log) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(serve(server, Answer::of(&[&prefixed]), asked));
    let mut client = GrpcClient::begin(client).await.unwrap();
    assert_eq!(client.call(call(1 << 20)).await.unwrap(), message);
    let error = client.call(call(200 << 10)).await.unwrap_err();
    assert!(matches!(error, CallError::TooLarge { limit: 204_800 }), "{error}");
    // The connection is still good.
    assert_eq!(client.call(call(1 << 20)).await.unwrap(), message);
}

#[tokio::test]
async fn a_server_says_what_is_wrong_in_headers_or_trailers() {
    let wrong = vec![
        ("grpc-status", "5"),
        ("grpc-message", "container %22x%22%0Anot found: 100%"),
    ];
    let in_headers = Answer {
        headers: wrong.clone(),
        trailers: Vec::new(),
        ..Answer::of(&[])
    };
    let in_trailers = Answer {
        trailers: wrong,
        ..Answer::of(&[])
    };
    for answer in [in_headers, in_trailers] {
        match answered(answer).await {
            Err(CallError::Status { code: 5, message }) => {
                assert_eq!(message, "container \"x\"\nnot found: 100%");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_no_answer_is_an_error() {
    let ok: &[&[u8]] = &[&[0, 0, 0, 0, 1, 9]];
    assert_eq!(answered(Answer::of(ok)).await.unwrap(), [9]);
    for (answer, expected) in [
        (Answer::of(&[]), "no message"),
        (
            Answer::of(&[&[0, 0, 0, 0, 2, 9]]),
            "length is not the one announced",
        ),
        (
            Answer::of(&[&[0, 0, 0, 0, 1, 9, 9]]),
            "length is not the one announced",
        ),
        (Answer::of(&[&[1, 0, 0, 0, 1, 9]]), "compressed"),
        (Answer::of(&[&[0; 200]]), "more than 100 bytes"),
        (Answer::of(&[&[0][..]; 30]), "more than 100 bytes"),
        (
            Answer {
                trailers: vec![("x", "y")],
                ..Answer::of(ok)
            },
            "without a grpc-status",
        ),
        (
            Answer {
                status: 503,
                ..Answer::of(ok)
            },
            "HTTP status 503",
        ),
    ] {
        let error = answered(answer).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn another_protocol_or_none_is_an_error() {
    for said in [
        &b""[..],
        b"\0\0\0\x05\0\0\0\x01\x02\0hello",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ] {
        let (client, mut server) = tokio::io::duplex(64 << 10);
        server.write_all(said).await.unwrap();
        server.shutdown().await.unwrap();
        let answer = match GrpcClient::begin(client).await {
            Ok(mut client) => client.call(call(100)).await,
            Err(error) => Err(error),
        };
        let error = answer.unwrap_err();
        assert!(
            matches!(error, CallError::Closed | CallError::Malformed(_)),
            "{error:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// After the server's settings, whatever it sends is an answer or an error, and never a panic.
    #[test]
    fn whatever_a_server_sends_ends_the_call(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (client, mut server) = tokio::io::duplex(64 << 10);
            server.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            server.write_all(&bytes).await.unwrap();
            server.shutdown().await.unwrap();
            let mut client = GrpcClient::begin(client).await.unwrap();
            assert!(client.call(call(100)).await.is_err());
        });
        let _ = without_prefix(bytes.clone());
        let _ = percent_decoded(&bytes);
    }
}
