use super::*;
use proptest::prelude::*;
use tokio::io::{DuplexStream, duplex};

const CONTAINER: &str = "f9823c73086ceae8430f3cf99a65221f2d03675bb19fc9cee465ee4ab54813e7";
const EVENT: &str = include_str!("../../../tests/fixtures/gvisor-2026-08/urpc-event-container.json");

/// A sandbox that answers each call with the next of these replies, sent in these pieces, and then closes. Gives back
/// what it was asked.
fn sandbox(replies: Vec<Vec<Vec<u8>>>) -> (ControlConnection<DuplexStream>, tokio::task::JoinHandle<String>) {
    let (ours, mut theirs) = duplex(4 << 20);
    let serving = tokio::spawn(async move {
        let mut asked = String::new();
        for reply in replies {
            let mut question = vec![0; 4 << 10];
            let length = theirs.read(&mut question).await.unwrap();
            asked.push_str(std::str::from_utf8(&question[..length]).unwrap());
            for piece in reply {
                // Whoever has heard enough closes.
                if theirs.write_all(&piece).await.is_err() {
                    return asked;
                }
                tokio::task::yield_now().await;
            }
        }
        asked
    });
    (ControlConnection::new(ours, address()), serving)
}

fn address() -> Address {
    Address::Path("/run/containerd/runsc/k8s.io/runsc-s.sock".into())
}

fn whole(reply: impl Into<Vec<u8>>) -> Vec<Vec<u8>> {
    vec![reply.into()]
}

async fn event(reply: impl Into<Vec<u8>>) -> Result<GvisorEvent, ShimError> {
    sandbox(vec![whole(reply)]).0.event(CONTAINER).await
}

async fn malformed(reply: impl Into<Vec<u8>>) -> String {
    match event(reply).await.unwrap_err() {
        ShimError::Malformed { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn one_connection_carries_one_call_after_another() {
    let state = |number: u64| whole(format!(r#"{{"success":true,"err":"","result":{number}}}"#));
    let (mut connection, serving) = sandbox(vec![whole(EVENT), state(1), state(2), state(3), state(0)]);
    let event = connection.event(CONTAINER).await.unwrap();
    assert_eq!(event.stats(None, None).cpu.usage.total, Some(330_000_000));
    for expected in [
        RuntimeState::Creating,
        RuntimeState::Running,
        RuntimeState::Stopped,
    ] {
        assert_eq!(connection.runtime_state("c").await.unwrap(), expected);
    }
    assert!(connection.is_usable());
    assert!(matches!(
        connection.runtime_state("c").await,
        Err(ShimError::Malformed { .. })
    ));
    // As runsc itself sends them.
    let state = r#"{"method":"containerManager.ContainerRuntimeState","arg":"c"}"#;
    assert_eq!(
        serving.await.unwrap(),
        format!(r#"{{"method":"containerManager.Event","arg":"{CONTAINER}"}}"#) + &state.repeat(4)
    );
}

#[tokio::test]
async fn a_reply_may_come_in_any_pieces() {
    let bytewise: Vec<Vec<u8>> = EVENT.bytes().map(|byte| vec![byte]).collect();
    let expected = event(EVENT).await.unwrap();
    let (mut connection, _) = sandbox(vec![bytewise, whole(format!(" {EVENT}\n"))]);
    assert_eq!(connection.event(CONTAINER).await.unwrap(), expected);
    assert_eq!(connection.event(CONTAINER).await.unwrap(), expected);
}

#[tokio::test]
async fn a_sandboxs_error_leaves_the_connection_usable() {
    let error = r#"{"success":false,"err":"container \"c\" not found\nand more","result":null}"#;
    let (mut connection, _) = sandbox(vec![whole(error), whole(EVENT)]);
    assert_eq!(
        connection.event("c").await.unwrap_err().to_string(),
        r#"/run/containerd/runsc/k8s.io/runsc-s.sock answered Event with an error: container "c" not found"#
    );
    assert!(connection.event(CONTAINER).await.is_ok());
}

#[tokio::test]
async fn an_answer_for_another_container_is_none() {
    let reason = sandbox(vec![whole(EVENT)]).0.event("c").await.unwrap_err();
    assert!(
        reason.to_string().ends_with(&format!(
            r#"asked for container "c", it answered for "{CONTAINER}""#
        )),
        "{reason}"
    );
}

#[tokio::test]
async fn a_reply_that_was_cut_off_is_an_error() {
    for length in 0..EVENT.trim_end().len() {
        let error = event(&EVENT.as_bytes()[..length]).await.unwrap_err();
        assert!(matches!(error, ShimError::Closed { .. }), "{length}: {error}");
    }
}

#[tokio::test]
async fn an_endless_reply_is_an_error() {
    for endless in [
        r#"{"err":""#.to_string() + &"x".repeat(2 << 20),
        " ".repeat(2 << 20),
        "{".repeat(2 << 20),
        r#"{"a":["#.to_string() + &"1,".repeat(1 << 20),
    ] {
        let error = event(endless).await.unwrap_err();
        assert!(matches!(error, ShimError::TooLarge { .. }), "{error}");
    }
    // In many pieces, each of which could be the last.
    let pieces = std::iter::once(b"{\"a\":[".to_vec())
        .chain(std::iter::repeat_n(b"{},".repeat(20), 20_000))
        .collect();
    let error = sandbox(vec![pieces]).0.event(CONTAINER).await.unwrap_err();
    assert!(matches!(error, ShimError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn nonsense_is_told_from_an_answer() {
    for reply in [
        "null",
        "[]",
        "\"{\"",
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "}",
        "{]",
        "{}",
        r#"{"success":true}"#,
        r#"{"success":true,"err":"","result":null}"#,
        r#"{"success":1,"err":"","result":null}"#,
        r#"{"success":true,"err":"","result":{}}"#,
        "{\"success\":\u{1}}",
    ] {
        malformed(reply).await;
    }
    // A second reply to one question, which may come with the first.
    assert_eq!(
        malformed(format!("{EVENT}{EVENT}")).await,
        "more than one reply to a call"
    );
    let number = |text: &str| EVENT.replace("330000000", text);
    for wrong in ["18446744073709551616", "-1", "1.5", "\"330000000\"", "1e400"] {
        malformed(number(wrong)).await;
    }
    assert!(event(number("18446744073709551615")).await.is_ok());
    // A text of the sandbox's in our own error stays short.
    let reason = malformed(number(&format!("\"{}\"", "x".repeat(100_000)))).await;
    assert!(reason.chars().count() <= TEXT_LIMIT, "{}", reason.len());
}

#[tokio::test]
async fn deep_nesting_neither_overflows_nor_hides_an_answer() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    // In a field that nobody reads.
    let reply = EVENT.replacen("\"err\"", &format!("\"new\": {deep}, \"err\""), 1);
    match event(reply).await {
        Ok(event) => assert_eq!(event.id(), CONTAINER),
        Err(error) => assert!(matches!(error, ShimError::Malformed { .. }), "{error}"),
    }
    malformed(EVENT.replace("330000000", &deep)).await;
}

#[tokio::test]
async fn what_comes_after_a_call_that_was_given_up_is_no_answer() {
    let (ours, mut theirs) = duplex(64 << 10);
    let mut connection = ControlConnection::new(ours, address());
    {
        let mut call = Box::pin(connection.event("slow"));
        // Polled once: the question is out.
        assert!(polled_once(&mut call).await.is_none());
    }
    theirs.write_all(EVENT.as_bytes()).await.unwrap();
    assert!(!connection.is_usable());
    let error = connection.event(CONTAINER).await.unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("an earlier call on this connection was given up"),
        "{error}"
    );
}

/// What a future has when it is polled once.
async fn polled_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

/// The socket can start and kill containers: nothing in this crate may name another of its methods.
#[test]
fn only_two_methods_are_ever_sent() {
    fn walk(directory: &std::path::Path, named: &mut std::collections::BTreeSet<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, named);
            } else if path.file_name().is_some_and(|name| name != "tests.rs") {
                let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
                // Every receiver that gVisor registers (runsc/boot/controller.go).
                for receiver in [
                    "containerManager.",
                    "Cgroups.",
                    "debug.",
                    "Fs.",
                    "Lifecycle.",
                    "Logging.",
                    "Metrics.",
                    "Network.",
                    "Proc.",
                    "Profile.",
                    "State.",
                    "Usage.",
                ] {
                    for (at, _) in text.match_indices(&format!("\"{receiver}")) {
                        named.extend(text[at + 1..].split('"').next().map(str::to_string));
                    }
                }
            }
        }
    }
    let mut named = std::collections::BTreeSet::new();
    walk(concat!(env!("CARGO_MANIFEST_DIR"), "/src").as_ref(), &mut named);
    assert_eq!(
        named.iter().map(String::as_str).collect::<Vec<_>>(),
        ["containerManager.ContainerRuntimeState", "containerManager.Event"]
    );
}

proptest! {
    #[test]
    fn an_object_ends_where_it_was_written_to_end(
        value in proptest::collection::btree_map(
            r#"[\[\]{}\\"a:]{0,4}"#,
            proptest::collection::vec(r#"[\[\]{}\\"ä,]{0,6}"#, 0..4),
            0..4,
        ),
        rest in r#"[\[\]{}\\" ]{0,4}"#,
        cut in any::<proptest::sample::Index>(),
    ) {
        let object = serde_json::to_string(&value).unwrap();
        let (first, second) = object.as_bytes().split_at(cut.index(object.len()));
        let last = [second, rest.as_bytes()].concat();
        let mut scan = ObjectScan::default();
        prop_assert_eq!(scan.feed(first), Ok(None));
        prop_assert_eq!(scan.feed(&last), Ok(Some(rest.as_bytes())));
    }

    #[test]
    fn no_reply_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), state in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut reply = b"{".to_vec();
            reply.extend(&bytes);
            for reply in [bytes, reply] {
                let (mut connection, _) = sandbox(vec![whole(reply)]);
                if state {
                    let _ = connection.runtime_state("c").await;
                } else {
                    let _ = connection.event("c").await;
                }
            }
        });
    }

    #[test]
    fn no_change_to_a_reply_panics(at in 0..EVENT.len(), byte in any::<u8>()) {
        let mut reply = EVENT.as_bytes().to_vec();
        reply[at] = byte;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _ = runtime.block_on(event(reply));
    }
}
