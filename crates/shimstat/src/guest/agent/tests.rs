use super::*;

use ::ttrpc::proto::{GenMessage, MessageHeader, Request, Response};
use proptest::prelude::*;
use protobuf::Message as _;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::guest::connect::{GuestSockets, SocketDirectories};
use crate::guest::testing::{block_on, bytes, number};
use crate::shim::connection;

const LIMIT: Duration = Duration::from_millis(500);

macro_rules! recorded {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/fixtures/kata-4.1-agent/", $name))
    };
}

fn address() -> GuestAddress {
    GuestAddress::parse("vsock://42:1024").unwrap()
}

/// A connection to an agent, and the agent's end of it.
fn pair() -> (AgentConnection, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (AgentConnection::new(connection(ours), address()), theirs)
}

fn frame(stream_id: u32, message: &[u8]) -> Vec<u8> {
    let header = MessageHeader::new_response(stream_id, u32::try_from(message.len()).unwrap());
    [Vec::from(header), message.to_vec()].concat()
}

/// A response as ttrpc's own types write it.
fn answer(stream_id: u32, payload: &[u8]) -> Vec<u8> {
    let mut response = Response::new();
    response.set_payload(payload.to_vec());
    frame(stream_id, &response.write_to_bytes().unwrap())
}

fn refusal(stream_id: u32, code: u64, message: &str) -> Vec<u8> {
    let status = [number(1, code), bytes(2, message.as_bytes())].concat();
    frame(stream_id, &bytes(1, &status))
}

/// Answers one request, read by ttrpc's own reader, and gives it back.
async fn serve(stream: &mut UnixStream, payload: &[u8]) -> Request {
    let message = GenMessage::read_from(&mut *stream).await.unwrap();
    let reply = answer(message.header.stream_id, payload);
    stream.write_all(&reply).await.unwrap();
    Request::parse_from_bytes(&message.payload).unwrap()
}

/// All that is ever sent to a guest. A call that is not in this list must not be added without a look at what it does
/// there: everything else that agents serve changes something, waits without end, or hands out a container's output.
#[test]
fn these_calls_and_no_others_are_sent_and_their_answers_are_read() {
    block_on(async {
        let (mut agent, mut theirs) = pair();
        let mut sent = Vec::new();
        macro_rules! call {
            ($call:expr, $payload:expr) => {{
                let (reply, request) = tokio::join!($call, serve(&mut theirs, $payload));
                assert_eq!(request.timeout_nano, 500_000_000);
                sent.push(format!("{}/{}", request.service, request.method));
                (reply.unwrap(), request.payload)
            }};
        }

        let (health, request) = call!(agent.check(LIMIT), recorded!("health-check.bin"));
        assert_eq!((health, request.as_slice()), (Health::Serving, &b""[..]));

        let (version, request) = call!(agent.version(LIMIT), recorded!("version.bin"));
        assert_eq!((version.agent.as_str(), version.api.as_str()), ("4.1.0", "0.0.1"));
        assert_eq!(request, b"");

        let (stats, request) = call!(agent.stats("c0ffee", LIMIT), recorded!("stats-container.bin"));
        assert_eq!(stats.stats.memory.usage.usage, Some(1_585_152));
        assert_eq!(request, b"\x0a\x06c0ffee");

        let (metrics, request) = call!(agent.metrics(LIMIT), recorded!("get-metrics.bin"));
        assert!(metrics.starts_with("# HELP kata_agent_io_stat Agent process IO statistics.\n"));
        assert_eq!(
            metrics.lines().filter(|line| line.starts_with("# TYPE ")).count(),
            14
        );
        assert_eq!(request, b"");

        let (details, request) = call!(agent.details(LIMIT), recorded!("guest-details.bin"));
        assert_eq!(
            details,
            GuestDetails {
                agent_version: "4.1.0".into(),
                agent_is_init: true,
                device_handlers: vec![],
                storage_handlers: [
                    "virtio-fs",
                    "watchable-bind",
                    "mmioblk",
                    "nvdimm",
                    "overlayfs",
                    "erofs.multi-layer",
                    "image_guest_pull",
                    "local",
                    "ephemeral",
                    "scsi",
                    "blk"
                ]
                .map(String::from)
                .into(),
                extra_features: vec![],
                supports_seccomp: false,
                memory_block_bytes: None,
                memory_hotplug_probe: false,
            }
        );
        assert_eq!(request, b"\x08\x01\x10\x01");

        let (interfaces, request) = call!(agent.interfaces(LIMIT), recorded!("list-interfaces.bin"));
        let interface =
            |name: &str, addresses: [(&str, u8); 2], mtu, hardware_address: &str| GuestInterface {
                name: name.into(),
                addresses: addresses
                    .map(|(address, prefix)| (address.parse().unwrap(), prefix))
                    .into(),
                mtu,
                hardware_address: hardware_address.into(),
            };
        assert_eq!(
            interfaces,
            [
                interface("lo", [("127.0.0.1", 8), ("::1", 128)], 65536, "00:00:00:00:00:00"),
                interface(
                    "eth0",
                    [("10.88.0.6", 16), ("fe80::68f1:52ff:fe10:c8f7", 64)],
                    1500,
                    "6A:F1:52:10:C8:F7"
                ),
            ]
        );
        assert_eq!(request, b"");

        // By hand: bytes and inodes, as get_volume_capacity_stats() and get_volume_inode_stats() fill them.
        let usage = |available, total, used, unit| {
            let usage = [
                number(1, available),
                number(2, total),
                number(3, used),
                number(4, unit),
            ];
            bytes(1, &usage.concat())
        };
        let condition = bytes(2, &bytes(2, b"OK"));
        let volume = [usage(60, 100, 40, 1), usage(7, 10, 3, 2), condition].concat();
        let (volume, request) = call!(agent.volume_stats("/run/v", LIMIT), &volume);
        let usage = |total, used, available| VolumeUsage {
            total,
            used,
            available,
        };
        assert_eq!(
            volume,
            VolumeStats {
                capacity: Some(usage(100, 40, 60)),
                inodes: Some(usage(10, 3, 7)),
                abnormal: None,
            }
        );
        assert_eq!(request, b"\x0a\x06/run/v");

        let allowed = [
            "grpc.Health/Check",
            "grpc.Health/Version",
            "grpc.AgentService/StatsContainer",
            "grpc.AgentService/GetMetrics",
            "grpc.AgentService/GetGuestDetails",
            "grpc.AgentService/ListInterfaces",
            "grpc.AgentService/GetVolumeStats",
        ];
        assert_eq!(sent, allowed);
        assert_eq!(Method::ALL.map(|method| method.to_string()), allowed);
    });
}

/// What a call for statistics says to an agent that sends these bytes, whatever it is asked, and closes.
async fn asked(bytes: &[u8]) -> Result<Box<GuestStats>, GuestError> {
    let (mut agent, mut theirs) = pair();
    let server = async {
        GenMessage::read_from(&mut theirs).await.unwrap();
        // The client may have given up before all is written.
        let _ = theirs.write_all(bytes).await;
        drop(theirs);
    };
    tokio::join!(agent.stats("c0ffee", LIMIT), server).0
}

#[test]
fn refusals_are_told_apart() {
    block_on(async {
        // A container that is not there: the bytes that an agent sent.
        let status = bytes(1, recorded!("stats-unknown.status"));
        match asked(&frame(1, &status)).await {
            Err(GuestError::NoContainer { id, .. }) => assert_eq!(id, "c0ffee"),
            other => panic!("{other:?}"),
        }
        // src/agent/src/policy.rs: PERMISSION_DENIED, and what the policy printed.
        let policy = "\"StatsContainerRequest is blocked by policy: \"";
        let error = asked(&refusal(1, 7, policy)).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the policy of the guest at vsock://42:1024 does not allow grpc.AgentService/StatsContainer"
        );
        assert!(matches!(error, GuestError::Forbidden { .. }) && !error.is_hung());
        // ttrpc for Rust, old and new, without the method.
        for (code, message) in [
            (3, "/grpc.AgentService/StatsContainer does not exist"),
            (3, "grpc.AgentService service does not exist"),
            (12, "StatsContainer method"),
        ] {
            let error = asked(&refusal(1, code, message)).await.unwrap_err();
            assert!(matches!(error, GuestError::Unsupported { .. }), "{error:?}");
        }
        let late = asked(&refusal(1, 4, "timeout")).await.unwrap_err();
        assert!(late.is_hung(), "{late:?}");
        match asked(&refusal(1, 13, &"\u{1b}x".repeat(10_000))).await {
            Err(GuestError::Rpc { code, message, .. }) => {
                assert_eq!((code, message.chars().count()), (13, 256));
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn an_answer_that_ends_early_is_an_error_wherever_it_ends() {
    block_on(async {
        let whole = answer(1, recorded!("stats-container.bin"));
        assert!(asked(&whole).await.is_ok());
        for length in (0..whole.len()).step_by(7) {
            let error = asked(&whole[..length]).await.unwrap_err();
            assert!(matches!(error, GuestError::Closed { .. }), "{length}: {error:?}");
        }
        // Whole frames, in which the agent's message is cut.
        let payload = recorded!("stats-container.bin");
        for length in (1..payload.len()).step_by(7) {
            let error = asked(&answer(1, &payload[..length])).await.unwrap_err();
            assert!(
                matches!(error, GuestError::Malformed { .. }),
                "{length}: {error:?}"
            );
        }
    });
}

#[test]
fn each_call_has_a_limit() {
    block_on(async {
        let limit = Method::StatsContainer.limit();
        let announced = Vec::from(MessageHeader::new_response(1, u32::try_from(limit).unwrap() + 1));
        let error = asked(&announced).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "vsock://42:1024 sent more than 262144 bytes in answer to grpc.AgentService/StatsContainer"
        );
        // Answers to nobody, without end.
        let error = asked(&answer(9, &[0; 1000]).repeat(300)).await.unwrap_err();
        assert!(matches!(error, GuestError::TooLarge { .. }), "{error:?}");
        // Nothing is read beyond what ttrpc allows.
        assert!(
            Method::ALL
                .iter()
                .all(|method| method.limit() <= ::ttrpc::proto::MESSAGE_LENGTH_MAX)
        );
    });
}

#[test]
fn texts_and_lists_of_a_guest_are_cut() {
    block_on(async {
        let (mut agent, mut theirs) = pair();
        let long = "é".repeat(300);
        let details = [bytes(1, long.as_bytes()), bytes(4, long.as_bytes()).repeat(100)].concat();
        let reply = bytes(2, &details);
        let (details, _) = tokio::join!(agent.details(LIMIT), serve(&mut theirs, &reply));
        let details = details.unwrap();
        assert_eq!(details.agent_version, "é".repeat(256));
        assert_eq!(details.storage_handlers, vec!["é".repeat(256); 64]);

        let ip = |address: &str, mask: &str| {
            bytes(
                3,
                &[bytes(2, address.as_bytes()), bytes(3, mask.as_bytes())].concat(),
            )
        };
        let interface = [
            bytes(2, long.as_bytes()),
            ip("10.0.0.1", "33"),
            ip("10.0.0.1", "-1"),
            ip("\u{1b}[31m", "8"),
            ip("::1", "128"),
        ];
        let reply = bytes(1, &interface.concat());
        let (interfaces, _) = tokio::join!(agent.interfaces(LIMIT), serve(&mut theirs, &reply));
        let interfaces = interfaces.unwrap();
        assert_eq!(interfaces[0].name, "é".repeat(256));
        assert_eq!(interfaces[0].addresses, [("::1".parse().unwrap(), 128)]);

        let broken = bytes(2, &[number(1, 1), bytes(2, long.as_bytes())].concat());
        let (volume, _) = tokio::join!(agent.volume_stats("/v", LIMIT), serve(&mut theirs, &broken));
        let volume = volume.unwrap();
        assert_eq!((volume.abnormal, volume.capacity), (Some("é".repeat(256)), None));

        for (status, health) in [
            (0, Health::Unknown),
            (2, Health::NotServing),
            (u64::MAX, Health::Unknown),
        ] {
            let reply = number(1, status);
            let (reply, _) = tokio::join!(agent.check(LIMIT), serve(&mut theirs, &reply));
            assert_eq!(reply.unwrap(), health);
        }
    });
}

/// A sandbox with a hypervisor's socket.
struct Sandbox {
    sockets: GuestSockets,
    address: GuestAddress,
    listener: UnixListener,
    _dir: tempfile::TempDir,
}

impl Sandbox {
    const ID: &str = "6d2b";

    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join(Self::ID);
        std::fs::create_dir(&own).unwrap();
        let socket = own.join("ch-vm.sock");
        Self {
            sockets: GuestSockets {
                directories: SocketDirectories {
                    roots: [dir.path().into(), dir.path().into()],
                    users: dir.path().join("user"),
                },
            },
            address: GuestAddress::parse(&format!("hvsock://{}:1024", socket.display())).unwrap(),
            listener: UnixListener::bind(&socket).unwrap(),
            _dir: dir,
        }
    }

    async fn connect_alive(&self, limit: Duration) -> Result<AgentConnection, GuestError> {
        let alive = async {
            let mut agent = AgentConnection::connect(&self.sockets, &self.address, Self::ID).await?;
            agent.check(limit).await?;
            Ok(agent)
        };
        timeout(limit, alive).await.unwrap_or_else(|_| {
            Err(GuestError::Timeout {
                address: self.address.clone(),
                limit,
            })
        })
    }
}

#[test]
fn a_guest_that_lives_is_connected_to_and_one_that_hangs_is_given_up() {
    block_on(async {
        let sandbox = Sandbox::new();
        let listener = &sandbox.listener;
        let limit = Duration::from_millis(200);
        // It lives: the hypervisor connects us, the agent answers, and the connection serves for more.
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut connect = [0; 13];
            tokio::io::AsyncReadExt::read_exact(&mut stream, &mut connect)
                .await
                .unwrap();
            assert_eq!(&connect, b"CONNECT 1024\n");
            stream.write_all(b"OK 1073741824\n").await.unwrap();
            serve(&mut stream, recorded!("health-check.bin")).await;
            serve(&mut stream, recorded!("version.bin")).await;
        };
        let client = async {
            let mut agent = sandbox.connect_alive(limit).await.unwrap();
            assert_eq!(agent.version(LIMIT).await.unwrap().agent, "4.1.0");
        };
        tokio::join!(server, client);

        // It hangs: before the handshake's answer, within it, and after it.
        for before in [&b""[..], b"OK 10", b"OK 1073741824\n"] {
            let server = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(before).await.unwrap();
                stream
            };
            let begun = std::time::Instant::now();
            let alive = sandbox.connect_alive(limit);
            let (result, _stream) = tokio::join!(alive, server);
            let Err(error) = result else {
                panic!("connected to a guest that hangs");
            };
            assert!(error.is_hung(), "{before:?}: {error:?}");
            assert!((limit..limit * 5).contains(&begun.elapsed()), "{before:?}");
        }

        // Nobody listens in the guest: the hypervisor closes.
        let server = async { drop(listener.accept().await.unwrap()) };
        let alive = sandbox.connect_alive(limit);
        let (result, ()) = tokio::join!(alive, server);
        let Err(error) = result else {
            panic!("connected to nobody");
        };
        assert!(matches!(error, GuestError::Closed { .. }), "{error:?}");
        assert!(!error.is_hung());
    });
}

#[test]
fn a_socket_outside_of_the_sandboxs_directory_is_not_connected_to() {
    block_on(async {
        let sandbox = Sandbox::new();
        let connect = |id| AgentConnection::connect(&sandbox.sockets, &sandbox.address, id);
        assert!(
            timeout(LIMIT, connect(Sandbox::ID)).await.is_err(),
            "no handshake"
        );
        let Err(error) = connect("another").await else {
            panic!("connected");
        };
        assert_eq!(
            error.to_string(),
            format!(
                "{} is not connected to: no part of its path is sandbox another's own directory",
                sandbox.address
            )
        );
    });
}

proptest! {
    #[test]
    fn whatever_an_agent_sends_ends_without_a_panic(
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        payload in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        block_on(async {
            let _ = asked(&noise).await;
            let _ = asked(&answer(1, &payload)).await;
            // Recorded bytes with noise in their place.
            let mut changed = answer(1, recorded!("stats-container.bin"));
            for (byte, place) in payload.iter().zip(noise.iter()) {
                if let Some(target) = changed.get_mut(usize::from(*place) * 5) {
                    *target = *byte;
                }
            }
            let _ = asked(&changed).await;
        });
    }
}
