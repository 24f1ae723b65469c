use super::*;
use std::collections::HashMap;

use proptest::prelude::*;
use tokio::io::{DuplexStream, duplex};
use ttrpc::proto::{GenMessage, MESSAGE_TYPE_DATA};

const CALL: Call<'static> = Call {
    service: "a.Service",
    method: "Method",
    payload: b"question",
    timeout: Duration::from_millis(1500),
    limit: 1000,
};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            tokio::time::timeout(Duration::from_secs(20), future)
                .await
                .expect("no end")
        })
}

fn frame(stream_id: u32, payload: &[u8]) -> Vec<u8> {
    let header = MessageHeader::new_response(stream_id, u32::try_from(payload.len()).unwrap());
    [Vec::from(header), payload.to_vec()].concat()
}

fn response(payload: &[u8]) -> Vec<u8> {
    let mut response = Response::new();
    response.set_payload(payload.to_vec());
    response.write_to_bytes().unwrap()
}

/// What a call says to a server that sends these bytes and closes.
async fn answered(bytes: &[u8]) -> Result<Vec<u8>, CallError> {
    let (ours, mut theirs) = duplex(64 << 10);
    theirs.write_all(bytes).await.unwrap();
    let mut client = Client::new(ours);
    let call = client.call(CALL);
    let server = async {
        theirs.shutdown().await.unwrap();
        // The request has to fit before the server is gone.
        let _ = theirs.read_buf(&mut Vec::new()).await;
    };
    tokio::join!(call, server).0
}

/// Reads a request with ttrpc's own reader.
async fn request(stream: &mut DuplexStream) -> (u32, Request) {
    let message = GenMessage::read_from(stream).await.unwrap();
    (
        message.header.stream_id,
        Request::parse_from_bytes(&message.payload).unwrap(),
    )
}

#[test]
fn a_call_is_framed_as_ttrpc_does_and_streams_are_numbered() {
    block_on(async {
        let (ours, mut theirs) = duplex(64 << 10);
        let mut client = Client::new(ours);
        for expected_id in [1, 3, 5] {
            let server = async {
                let (id, request) = request(&mut theirs).await;
                assert_eq!(id, expected_id);
                assert_eq!(
                    (request.service.as_str(), request.method.as_str()),
                    ("a.Service", "Method")
                );
                assert_eq!(request.payload, b"question");
                assert_eq!(request.timeout_nano, 1_500_000_000);
                theirs.write_all(&frame(id, &response(b"answer"))).await.unwrap();
            };
            let (reply, ()) = tokio::join!(client.call(CALL), server);
            assert_eq!(reply.unwrap(), b"answer");
        }
    });
}

#[test]
fn an_answer_may_come_byte_by_byte() {
    block_on(async {
        // A pipe that holds a byte.
        let (ours, mut theirs) = duplex(1);
        let mut client = Client::new(ours);
        let server = async {
            let (id, _) = request(&mut theirs).await;
            theirs.write_all(&frame(id, &response(&[7; 600]))).await.unwrap();
        };
        let (reply, ()) = tokio::join!(client.call(CALL), server);
        assert_eq!(reply.unwrap(), [7; 600]);
    });
}

#[test]
fn an_answer_that_ends_early_is_an_error_wherever_it_ends() {
    block_on(async {
        let whole = frame(1, &response(&[7; 40]));
        assert_eq!(answered(&whole).await.unwrap(), [7; 40]);
        for length in 0..whole.len() {
            let error = answered(&whole[..length]).await.unwrap_err();
            assert!(matches!(error, CallError::Closed), "{length}: {error:?}");
        }
        // A frame that is whole, with a message in it that is not.
        let cut = response(&[7; 40]);
        let error = answered(&frame(1, &cut[..20])).await.unwrap_err();
        assert!(matches!(error, CallError::Malformed(_)), "{error:?}");
    });
}

#[test]
fn no_more_is_read_than_a_call_may_have() {
    block_on(async {
        let longest = response(&[7; 990]);
        assert!(longest.len() <= CALL.limit);
        assert!(answered(&frame(1, &longest)).await.is_ok());
        assert!(matches!(
            answered(&frame(1, &[0; 1001])).await,
            Err(CallError::TooLarge { limit: 1000 })
        ));
        // The announcement is enough: the rest is not waited for, nor is room made for it.
        let announced = Vec::from(MessageHeader::new_response(1, u32::MAX));
        assert!(matches!(
            answered(&announced).await,
            Err(CallError::TooLarge { .. })
        ));
    });
}

#[test]
fn answers_to_other_calls_are_skipped_but_not_without_end() {
    block_on(async {
        let mut bytes = [frame(7, &response(b"other")), frame(0, b""), frame(3, b"\xff")].concat();
        bytes.extend(frame(1, &response(b"mine")));
        assert_eq!(answered(&bytes).await.unwrap(), b"mine");
        for other in [frame(7, b""), frame(7, &[0; 300])] {
            let flood = other.repeat(200);
            assert!(matches!(
                answered(&flood).await,
                Err(CallError::TooLarge { limit: 1000 })
            ));
        }
    });
}

#[test]
fn a_call_that_was_given_up_does_not_harm_the_next() {
    block_on(async {
        let (ours, mut theirs) = duplex(64 << 10);
        let mut client = Client::new(ours);
        let late = frame(1, &response(b"late"));
        let (head, tail) = late.split_at(15);
        {
            let mut given_up = std::pin::pin!(client.call(CALL));
            theirs.write_all(head).await.unwrap();
            // Polled twice: it has sent, and has read half of a frame.
            for _ in 0..2 {
                std::future::poll_fn(|context| {
                    assert!(given_up.as_mut().poll(context).is_pending());
                    std::task::Poll::Ready(())
                })
                .await;
            }
        }
        theirs.write_all(tail).await.unwrap();
        theirs.write_all(&frame(3, &response(b"next"))).await.unwrap();
        assert_eq!(client.call(CALL).await.unwrap(), b"next");
    });
}

#[test]
fn a_frame_of_another_type_is_no_answer() {
    block_on(async {
        let mut bytes = frame(1, &response(b"x"));
        bytes[8] = MESSAGE_TYPE_DATA;
        assert!(matches!(answered(&bytes).await, Err(CallError::Malformed(_))));
    });
}

#[test]
fn the_servers_own_errors_are_told() {
    block_on(async {
        // The bytes that Kata's agent sent for a container it does not have.
        let status = include_bytes!("../../../tests/fixtures/kata-4.1-agent/stats-unknown.status");
        let mut bytes = vec![1 << 3 | 2, u8::try_from(status.len()).unwrap()];
        bytes.extend_from_slice(status);
        match answered(&frame(1, &bytes)).await {
            Err(CallError::Status { code, message }) => {
                assert_eq!((code, message.as_str()), (3, "\"invalid container id\""));
            }
            other => panic!("{other:?}"),
        }
    });
}

/// ttrpc's own server says what it does not have.
#[test]
fn an_unknown_service_and_an_unknown_method_are_told_from_other_errors() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let empty = ttrpc::asynchronous::Service {
            methods: HashMap::new(),
            streams: HashMap::new(),
        };
        let mut server = ttrpc::asynchronous::Server::new()
            .bind(&format!("unix://{}", path.display()))
            .unwrap()
            .register_service(HashMap::from([("known.Service".to_owned(), empty)]));
        server.start().await.unwrap();
        let mut client = Client::new(tokio::net::UnixStream::connect(&path).await.unwrap());
        for service in ["known.Service", "other.Service"] {
            match client.call(Call { service, ..CALL }).await {
                Err(CallError::Status { code, message }) => {
                    assert!(is_unknown(code, &message, service), "{code} {message}");
                }
                other => panic!("{other:?}"),
            }
        }
        server.shutdown().await.unwrap();
    });
    // What servers of other kinds say: Go's ttrpc, Rust's ttrpc up to 0.8, gVisor's shim.
    let service = "containerd.task.v3.Task";
    assert!(is_unknown(12, "service containerd.task.v3.Task", service));
    assert!(is_unknown(
        3,
        "/containerd.task.v3.Task/Stats does not exist",
        service
    ));
    assert!(is_unknown(
        5,
        "service containerd.task.v3.Task: not found",
        service
    ));
    assert!(!is_unknown(3, "invalid container id", service));
    assert!(!is_unknown(5, "container does not exist x: not found", service));
    assert!(!is_unknown(2, "/containerd.task.v3.Task/Stats", service));
}

proptest! {
    #[test]
    fn whatever_is_sent_ends_without_a_panic(
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        payload in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        block_on(async {
            let _ = answered(&noise).await;
            let _ = answered(&frame(1, &payload)).await;
        });
    }
}
