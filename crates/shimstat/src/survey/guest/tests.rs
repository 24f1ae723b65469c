//! Simulated sandboxes: a shim, its monitor and the agent in its guest, over connections in memory and paused time.

use super::*;

use std::collections::HashSet;
use std::io;

use containerd_shim_protos::api::{StateResponse, StatsResponse, Status};
use containerd_shim_protos::cgroups::metrics::{CPUStat, CPUUsage, MemoryEntry, MemoryStat, Metrics};
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use ttrpc::proto::{GenMessage, MessageHeader, Request, Response, Status as RpcStatus};

use crate::guest::{ConnectGuest, ConnectingGuest, Method, VolumeUsage};
use crate::node::{Bundle, Description, Layout, Role, Source};
use crate::shim::address::{Endpoint, Protocol, TaskVersion};
use crate::shim::{Connect, Connecting, Connection, ShimError};
use crate::survey::{
    AskError, MonitorError, Network, Origin, Sample, State, StateAndGuest, Statistics, Survey, Via,
};

const LIMIT: Duration = Duration::from_secs(3);

const URL: &str = "vsock://42:1024";

/// What the agent answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agent {
    Lives,
    /// It takes connections and answers nothing.
    Hangs,
    /// It answers checks, and hangs when it is asked for a container.
    HangsAtStats,
    /// It sends a byte every 100 ms.
    Drips,
    /// It takes a second for everything but checks.
    Dawdles,
    /// Its policy forbids all but checks.
    Refuses,
    /// It forbids even checks.
    RefusesAll,
    /// Nobody listens.
    Gone,
}

/// A simulated node with one sandbox.
struct Sandbox {
    /// `shim State`, `monitor /agent-url`, `guest connect`, `guest grpc.Health/Check`, …, with the time of each.
    calls: Mutex<Vec<(String, Instant)>>,
    agent: Mutex<Agent>,
    agent_url: Mutex<Option<String>>,
    begun: Instant,
}

impl Sandbox {
    fn note(&self, call: String) {
        self.calls.lock().unwrap().push((call, Instant::now()));
    }

    fn agent(&self) -> Agent {
        *self.agent.lock().unwrap()
    }
}

struct Shims(Arc<Sandbox>);

impl Connect for Shims {
    fn connect<'a>(&'a self, address: &'a Address) -> Connecting<'a> {
        Box::pin(async move {
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            match address.to_string().as_str() {
                "/shim" => drop(tokio::spawn(serve_shim(theirs, self.0.clone()))),
                "/monitor" => drop(tokio::spawn(serve_monitor(theirs, self.0.clone()))),
                _ => {
                    return Err(ShimError::Connect {
                        address: address.clone(),
                        source: io::ErrorKind::ConnectionRefused.into(),
                    });
                }
            }
            Ok(Box::new(ours) as Connection)
        })
    }
}

struct Guests(Arc<Sandbox>);

impl ConnectGuest for Guests {
    fn connect<'a>(&'a self, address: &'a GuestAddress, sandbox: &'a str) -> ConnectingGuest<'a> {
        Box::pin(async move {
            assert_eq!((address.to_string().as_str(), sandbox), (URL, "sandbox"));
            self.0.note("guest connect".into());
            if self.0.agent() == Agent::Gone {
                return Err(GuestError::Connect {
                    address: address.clone(),
                    source: io::ErrorKind::ConnectionReset.into(),
                });
            }
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            tokio::spawn(serve_agent(theirs, self.0.clone()));
            Ok(Box::new(ours) as Connection)
        })
    }
}

async fn requests(mut stream: DuplexStream, answer: impl Fn(Request) -> Option<Result<Vec<u8>, i32>>) {
    dawdling(&mut stream, answer, |_| Duration::ZERO).await;
}

/// Answers each request after a time.
async fn dawdling(
    mut stream: &mut DuplexStream,
    answer: impl Fn(Request) -> Option<Result<Vec<u8>, i32>>,
    takes: impl Fn(&str) -> Duration,
) {
    while let Ok(frame) = GenMessage::read_from(&mut stream).await {
        let request = Request::parse_from_bytes(&frame.payload).unwrap();
        tokio::time::sleep(takes(&request.method)).await;
        let mut response = Response::new();
        match answer(request) {
            Some(Ok(payload)) => response.payload = payload,
            Some(Err(code)) => {
                let mut status = RpcStatus::new();
                status.code = protobuf::EnumOrUnknown::from_i32(code);
                response.status = MessageField::some(status);
            }
            None => continue,
        }
        let body = response.write_to_bytes().unwrap();
        let header = MessageHeader::new_response(frame.header.stream_id, body.len() as u32);
        if stream
            .write_all(&[Vec::from(header), body].concat())
            .await
            .is_err()
        {
            return;
        }
    }
}

/// A shim like Kata's Go shim with a cgroup v2 guest: its user and kernel time are swapped.
async fn serve_shim(stream: DuplexStream, sandbox: Arc<Sandbox>) {
    requests(stream, |request| {
        sandbox.note(format!("shim {}", request.method));
        if request.method == "State" {
            let state = StateResponse {
                status: Status::RUNNING.into(),
                pid: 4711,
                ..StateResponse::new()
            };
            return Some(Ok(state.write_to_bytes().unwrap()));
        }
        let usage = CPUUsage {
            total: 274_826_000,
            user: 1,
            kernel: 2,
            ..CPUUsage::new()
        };
        let memory = MemoryEntry {
            usage: 1_720_320,
            ..MemoryEntry::new()
        };
        let metrics = Metrics {
            cpu: MessageField::some(CPUStat {
                usage: MessageField::some(usage),
                ..CPUStat::new()
            }),
            memory: MessageField::some(MemoryStat {
                usage: MessageField::some(memory),
                ..MemoryStat::new()
            }),
            ..Metrics::new()
        };
        let any = Any {
            type_url: "io.containerd.cgroups.v1.Metrics".into(),
            value: metrics.write_to_bytes().unwrap(),
            ..Any::new()
        };
        let reply = StatsResponse {
            stats: MessageField::some(any),
            ..StatsResponse::new()
        };
        Some(Ok(reply.write_to_bytes().unwrap()))
    })
    .await;
}

async fn serve_monitor(mut stream: DuplexStream, sandbox: Arc<Sandbox>) {
    let mut request = [0; 1024];
    let read = stream.read(&mut request).await.unwrap();
    let request = String::from_utf8_lossy(&request[..read]).into_owned();
    let path = request.split(' ').nth(1).unwrap();
    sandbox.note(format!("monitor {path}"));
    let body = match path {
        "/agent-url" => sandbox.agent_url.lock().unwrap().clone(),
        _ => Some("kata_shim_threads 7\n".into()),
    };
    let Some(body) = body else {
        tokio::time::sleep(LIMIT * 100).await;
        return;
    };
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all(answer.as_bytes()).await;
}

async fn serve_agent(mut stream: DuplexStream, sandbox: Arc<Sandbox>) {
    let takes = |method: &str| match (sandbox.agent(), method) {
        (Agent::Dawdles, method) if method != "Check" => Duration::from_secs(1),
        _ => Duration::ZERO,
    };
    let answer = |request: Request| {
        sandbox.note(format!("guest {}/{}", request.service, request.method));
        let recorded: &[u8] = match request.method.as_str() {
            "Check" => include_bytes!("../../../tests/fixtures/kata-4.1-agent/health-check.bin"),
            "StatsContainer" => include_bytes!("../../../tests/fixtures/kata-4.1-agent/stats-container.bin"),
            "GetGuestDetails" => include_bytes!("../../../tests/fixtures/kata-4.1-agent/guest-details.bin"),
            // 8192 of 65536 bytes are used. No recording has a volume.
            "GetVolumeStats" if request.payload.ends_with(b"/shm") => {
                &[10, 13, 8, 0x80, 0xc0, 3, 16, 0x80, 0x80, 4, 24, 0x80, 0x40, 32, 1]
            }
            "GetVolumeStats" => return Some(Err(13)),
            "Version" => include_bytes!("../../../tests/fixtures/kata-4.1-agent/version.bin"),
            "ListInterfaces" => include_bytes!("../../../tests/fixtures/kata-4.1-agent/list-interfaces.bin"),
            "GetMetrics" => include_bytes!("../../../tests/fixtures/kata-4.1-agent/get-metrics.bin"),
            other => panic!("{other}"),
        };
        match (sandbox.agent(), request.method.as_str()) {
            (Agent::Hangs, _) | (Agent::HangsAtStats, "StatsContainer") => None,
            (Agent::RefusesAll, _) => Some(Err(7)),
            (Agent::Refuses, call) if !matches!(call, "Check" | "Version") => Some(Err(7)),
            _ => Some(Ok(recorded.to_vec())),
        }
    };
    if sandbox.agent() == Agent::Drips {
        let (mut theirs, dripping) = tokio::io::duplex(1);
        tokio::join!(dawdling(&mut theirs, answer, takes), drip(dripping, stream));
        return;
    }
    dawdling(&mut stream, answer, takes).await;
}

/// Passes requests on as they come, and answers a byte at a time.
async fn drip(agent: DuplexStream, client: DuplexStream) {
    let (mut answers, mut to_agent) = tokio::io::split(agent);
    let (mut requests, mut to_client) = tokio::io::split(client);
    let dripping = async {
        while let Ok(byte) = answers.read_u8().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if to_client.write_u8(byte).await.is_err() {
                return;
            }
        }
    };
    let _ = tokio::join!(tokio::io::copy(&mut requests, &mut to_agent), dripping);
}

struct Node {
    sandbox: Arc<Sandbox>,
    survey: Survey,
    dir: tempfile::TempDir,
}

impl Node {
    fn new(agent: Agent) -> Self {
        let sandbox = Arc::new(Sandbox {
            calls: Mutex::default(),
            agent: Mutex::new(agent),
            agent_url: Mutex::new(Some(format!("{URL}\n"))),
            begun: Instant::now(),
        });
        let survey = Survey::through(Arc::new(Shims(sandbox.clone())), LIMIT, 8)
            .reaching_guests_through(Arc::new(Guests(sandbox.clone())))
            .keeping_connections();
        let node = Self {
            sandbox,
            survey,
            dir: tempfile::tempdir().unwrap(),
        };
        let own = node.dir.path().join("sandbox");
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("monitor_address"), "unix:///monitor").unwrap();
        node
    }

    fn container(&self, id: &str) -> Arc<Container> {
        let endpoint = Endpoint {
            address: Address::Path("/shim".into()),
            protocol: Protocol::Ttrpc,
            version: TaskVersion::V2,
        };
        let bundle = Bundle {
            state_dir: self.dir.path().into(),
            namespace: "k8s.io".into(),
            id: id.into(),
            path: self.dir.path().join(id),
            layout: Layout::Task,
        };
        let description = Description {
            role: match id {
                "sandbox" => Role::Sandbox,
                _ => Role::InSandbox("sandbox".into()),
            },
            ..Description::default()
        };
        Arc::new(Container::new(bundle, Ok(Source::Task(endpoint)), description))
    }

    fn pod(&self) -> Pod {
        let mut pod = crate::node::pods(&[self.container("sandbox"), self.container("c1")]).remove(0);
        pod.monitor = vec![Address::Path("/monitor".into())];
        pod
    }

    /// Gives a container volumes; the guest knows none of them.
    fn has_empty_dirs(&self, count: usize) {
        let source = |n| format!(r#"{{"source":"/pods/1/volumes/kubernetes.io~empty-dir/v{n}"}}"#);
        let mounts: Vec<_> = (0..count).map(source).collect();
        let bundle = self.dir.path().join("c1");
        std::fs::create_dir(&bundle).unwrap();
        let spec = format!(r#"{{"mounts":[{}]}}"#, mounts.join(","));
        std::fs::write(bundle.join("config.json"), spec).unwrap();
    }

    async fn ask(&self, id: &str) -> Result<Sample, AskError> {
        self.ask_via(id, Via::Both).await
    }

    async fn ask_via(&self, id: &str, via: Via) -> Result<Sample, AskError> {
        let question = Statistics {
            network: Network::None,
            via,
        };
        self.survey.ask(&self.container(id), question).await
    }

    /// The calls since the last look, without their times.
    fn calls(&self) -> Vec<String> {
        let calls = std::mem::take(&mut *self.sandbox.calls.lock().unwrap());
        calls.into_iter().map(|(call, _)| call).collect()
    }

    fn becomes(&self, agent: Agent) {
        *self.sandbox.agent.lock().unwrap() = agent;
    }
}

const HUNG: [&str; 4] = [
    "shim State",
    "monitor /agent-url",
    "guest connect",
    "guest grpc.Health/Check",
];

#[track_caller]
fn assert_hung<T: std::fmt::Debug>(answer: Result<T, AskError>) {
    let state = match answer {
        Err(AskError::GuestHung { silence, state }) => {
            assert_eq!(silence.address.to_string(), URL);
            state
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(state.unwrap().pid, 4711, "what the shim tells without its guest");
}

#[tokio::test(start_paused = true)]
async fn the_shim_of_a_hung_guest_is_not_asked_for_statistics() {
    let node = Node::new(Agent::Hangs);
    assert_hung(node.ask("c1").await);
    assert_eq!(node.sandbox.begun.elapsed(), PATIENCE);
    assert_eq!(node.calls(), HUNG);
    // The answer counts for the whole sandbox.
    for id in ["c2", "sandbox", "c1"] {
        assert_hung(node.ask(id).await);
    }
    assert_eq!(node.sandbox.begun.elapsed(), PATIENCE);
    assert_eq!(node.calls(), ["shim State"; 3]);
    assert!(node.survey.ask(&node.container("c1"), State).await.is_ok());
    assert_eq!(node.calls(), ["shim State"]);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_lived_a_moment_ago_is_given_more_time() {
    let node = Node::new(Agent::Lives);
    node.ask("c1").await.unwrap();
    *node.sandbox.agent.lock().unwrap() = Agent::Hangs;
    for patience in [PATIENCE_WITH_THE_LIVING, PATIENCE] {
        tokio::time::sleep(FRESH * 2).await;
        let begun = Instant::now();
        assert_hung(node.ask("c1").await);
        assert_eq!(begun.elapsed(), patience);
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_drips_has_no_more_time_than_one_that_hangs() {
    let node = Node::new(Agent::Drips);
    assert_hung(node.ask("c1").await);
    assert_eq!(node.sandbox.begun.elapsed(), PATIENCE);
    assert_eq!(node.calls(), HUNG);
}

#[tokio::test(start_paused = true)]
async fn all_who_ask_at_once_share_one_check() {
    let node = Node::new(Agent::Hangs);
    let containers: Vec<_> = (0..6).map(|n| node.container(&format!("c{n}"))).collect();
    let question = Statistics {
        network: Network::None,
        via: Via::Both,
    };
    let asking = node.survey.begin(containers, question).await;
    for answer in asking.answers(LIMIT).await {
        assert_hung(answer);
    }
    assert_eq!(node.sandbox.begun.elapsed(), PATIENCE);
    let calls = node.calls();
    let count = |wanted: &str| calls.iter().filter(|call| *call == wanted).count();
    assert_eq!((count("guest grpc.Health/Check"), count("shim State")), (1, 6));
    assert_eq!(count("shim Stats"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_comes_back_is_asked_again_after_a_second() {
    let node = Node::new(Agent::Hangs);
    assert_hung(node.ask("c1").await);
    node.becomes(Agent::Lives);
    tokio::time::sleep(FRESH - Duration::from_millis(1)).await;
    assert_hung(node.ask("c1").await);
    node.calls();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(node.ask("c1").await.is_ok());
    assert_eq!(
        node.calls(),
        [
            "shim State",
            "guest connect",
            "guest grpc.Health/Check",
            "guest grpc.AgentService/StatsContainer",
            "shim Stats",
        ],
        "where the agent listens is remembered"
    );
    // Its connection is kept, and the check counts for a second.
    assert!(node.ask("c1").await.is_ok());
    let again = [
        "shim State",
        "guest grpc.AgentService/StatsContainer",
        "shim Stats",
    ];
    assert_eq!(node.calls(), again);
    node.survey.rest();
    tokio::time::sleep(FRESH).await;
    assert!(node.ask("c1").await.is_ok());
    assert_eq!(node.calls()[1..3], ["guest connect", "guest grpc.Health/Check"]);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_hangs_at_a_container_is_hung_and_its_shim_is_not_asked() {
    let node = Node::new(Agent::HangsAtStats);
    assert_hung(node.ask("c1").await);
    assert_eq!(node.sandbox.begun.elapsed(), LIMIT);
    assert_hung(node.ask("c2").await);
    assert_eq!(node.sandbox.begun.elapsed(), LIMIT);
    assert!(!node.calls().contains(&"shim Stats".to_string()));
}

#[tokio::test(start_paused = true)]
async fn statistics_are_completed_by_the_guest() {
    let node = Node::new(Agent::Lives);
    let sample = node.ask("c1").await.unwrap();
    let cpu = &sample.stats.cpu.usage;
    // Read off the recorded reply with `protoc --decode_raw`.
    assert_eq!(cpu.total, Some(274_826_000));
    assert_eq!(
        (cpu.user, cpu.kernel),
        (Some(99_084_227_000), Some(130_875_022_000))
    );
    assert_eq!(sample.stats.memory.working_set(), Some(1_720_320 - 20_480));
    let Origin::Both { agent, fields } = &sample.origin else {
        panic!("{:?}", sample.origin)
    };
    assert_eq!(agent.to_string(), URL);
    assert!(fields.contains(&"memory.raw") && fields.contains(&"cpu.usage.user"));
    assert!(!fields.contains(&"cpu.usage.total"), "{fields:?}");
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_refuses_costs_what_it_would_have_added() {
    for agent in [Agent::Refuses, Agent::RefusesAll, Agent::Gone] {
        let node = Node::new(agent);
        let sample = node.ask("c1").await.unwrap();
        let cpu = &sample.stats.cpu.usage;
        assert_eq!((cpu.user, cpu.kernel), (Some(1), Some(2)), "{agent:?}");
        assert!(
            matches!(&sample.origin, Origin::ShimWithoutGuest(why) if matches!(**why, NoGuest::Agent(_))),
            "{agent:?}: {:?}",
            sample.origin
        );
    }
}

#[tokio::test(start_paused = true)]
async fn user_and_kernel_time_do_not_change_sides_when_the_guest_no_longer_tells() {
    let node = Node::new(Agent::Lives);
    node.ask("c1").await.unwrap();
    for agent in [Agent::Refuses, Agent::Gone] {
        node.becomes(agent);
        node.survey.rest();
        tokio::time::sleep(FRESH).await;
        let sample = node.ask("c1").await.unwrap();
        let cpu = &sample.stats.cpu.usage;
        assert_eq!(
            (cpu.total, cpu.user, cpu.kernel),
            (Some(274_826_000), None, None),
            "{agent:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn where_nothing_leads_to_the_agent_the_shim_is_asked_as_ever() {
    let node = Node::new(Agent::Lives);
    for (url, waits) in [
        (Some("remote:///run/peerpod"), Duration::ZERO),
        (Some(""), Duration::ZERO),
        (None, PATIENCE),
    ] {
        *node.sandbox.agent_url.lock().unwrap() = url.map(str::to_string);
        let begun = Instant::now();
        let sample = node.ask("c1").await.unwrap();
        assert_eq!(begun.elapsed(), waits, "{url:?}");
        assert!(matches!(sample.origin, Origin::ShimWithoutGuest(_)), "{url:?}");
        assert_eq!(node.calls(), ["shim State", "monitor /agent-url", "shim Stats"]);
        // The monitor is left alone for a while.
        tokio::time::sleep(FRESH * 2).await;
        node.ask("c1").await.unwrap();
        assert_eq!(node.calls(), ["shim State", "shim Stats"]);
        tokio::time::sleep(RETRY).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_side_alone_is_asked_where_that_is_wanted() {
    let node = Node::new(Agent::Lives);
    let guest = node.ask_via("c1", Via::Guest).await.unwrap();
    assert!(matches!(guest.origin, Origin::Guest { .. }));
    assert_eq!(guest.stats.memory.raw.len(), 60);
    assert!(!node.calls().contains(&"shim Stats".to_string()));
    node.becomes(Agent::Hangs);
    let shim = node.ask_via("c1", Via::Shim).await.unwrap();
    assert!(matches!(shim.origin, Origin::Shim));
    assert_eq!(shim.stats.cpu.usage.user, Some(1));
    assert_eq!(node.calls(), ["shim State", "shim Stats"]);
    tokio::time::sleep(FRESH).await;
    assert_hung(node.ask_via("c1", Via::Guest).await);
    node.becomes(Agent::Refuses);
    tokio::time::sleep(FRESH).await;
    let refused = node.ask_via("c1", Via::Guest).await;
    assert!(matches!(refused, Err(AskError::NoGuest { .. })), "{refused:?}");
    assert!(!node.calls().contains(&"shim Stats".to_string()));
}

#[tokio::test(start_paused = true)]
async fn the_monitor_of_a_hung_guest_is_not_asked_for_metrics() {
    let node = Node::new(Agent::Hangs);
    let page = |question| {
        let (survey, pod) = (node.survey.clone(), node.pod());
        async move { survey.ask_monitor(&pod, question, 1000).await }
    };
    match page(MonitorQuestion::Metrics).await {
        Err(MonitorError::Ask(error)) => assert_hung::<()>(Err(error)),
        other => panic!("{other:?}"),
    }
    match node.survey.guest_metrics(&node.pod()).await {
        Err(MonitorError::Ask(error)) => assert_hung::<()>(Err(error)),
        other => panic!("{other:?}"),
    }
    assert_eq!(node.sandbox.begun.elapsed(), PATIENCE);
    assert_hung(node.ask("c1").await);
    assert_eq!(node.calls(), [&HUNG[..], &["shim State"; 2]].concat());
    assert!(page(MonitorQuestion::AgentUrl).await.is_ok());
    assert!(page(MonitorQuestion::MetricsAtAnyRisk).await.is_ok());
    node.becomes(Agent::Lives);
    tokio::time::sleep(FRESH).await;
    assert!(page(MonitorQuestion::Metrics).await.is_ok());
    let metrics = node.survey.guest_metrics(&node.pod()).await.unwrap();
    assert!(metrics.text.contains("\nkata_guest_meminfo{"), "{}", metrics.text);
    assert_eq!(metrics.task_pid, Some(4711));
}

#[tokio::test(start_paused = true)]
async fn a_state_comes_with_whether_the_guest_lives() {
    let node = Node::new(Agent::Lives);
    let ask = async |id| node.survey.ask(&node.container(id), StateAndGuest).await;
    assert_eq!(ask("c1").await.unwrap().pid, 4711);
    let calls = node.calls();
    assert_eq!(calls, HUNG, "and no statistics");
    node.becomes(Agent::Hangs);
    tokio::time::sleep(FRESH).await;
    for id in ["sandbox", "c1"] {
        assert_hung(ask(id).await);
    }
    assert_eq!(
        node.calls(),
        ["shim State", "guest grpc.Health/Check", "shim State"],
        "one check for all of the sandbox"
    );
    for agent in [Agent::RefusesAll, Agent::Gone] {
        let node = Node::new(agent);
        let state = node.survey.ask(&node.container("c1"), StateAndGuest).await;
        assert!(state.is_ok(), "{agent:?}: {state:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_agent_tells_of_its_guest() {
    let node = Node::new(Agent::Lives);
    node.has_empty_dirs(1);
    let facts = async |metrics| node.survey.guest_facts(&node.pod(), metrics).await;
    let all = facts(true).await.unwrap();
    assert_eq!(all.agent.version, "4.1.0");
    assert!(all.agent.interfaces.is_some() && all.agent.details.is_some());
    assert!(all.metrics.unwrap().contains("\nkata_guest_meminfo{"));
    let [(volume, stats)] = all.volumes.as_slice() else {
        panic!("{:?}", all.volumes)
    };
    let usage = VolumeUsage {
        total: 65536,
        used: 8192,
        available: 57344,
    };
    assert_eq!((volume.name.as_str(), stats.capacity), ("shm", Some(usage)));
    node.calls();
    // What does not change is remembered.
    assert_eq!(facts(false).await.unwrap().agent, all.agent);
    assert_eq!(
        node.calls(),
        [
            "shim State",
            "guest grpc.AgentService/GetVolumeStats",
            "guest grpc.AgentService/GetVolumeStats",
        ]
    );
    let node = Node::new(Agent::Refuses);
    let facts = node.survey.guest_facts(&node.pod(), true).await.unwrap();
    assert_eq!(facts.agent.version, "4.1.0", "from Version");
    assert_eq!((&facts.agent.details, &facts.agent.interfaces), (&None, &None));
    assert!(facts.volumes.is_empty() && facts.metrics.is_none());
    assert!(!node.calls().contains(&"shim Stats".to_string()));
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_hangs_is_not_asked_for_facts_one_by_one() {
    let node = Node::new(Agent::Hangs);
    match node.survey.guest_facts(&node.pod(), true).await {
        Err(MonitorError::Ask(error)) => assert_hung::<()>(Err(error)),
        other => panic!("{other:?}"),
    }
    assert_eq!(node.sandbox.begun.elapsed(), PATIENCE);
    assert_eq!(node.calls(), HUNG);
}

/// A call takes a second, which is in time; a dozen do not.
#[tokio::test(start_paused = true)]
async fn a_slow_guest_has_one_limit_for_all_that_it_tells() {
    let node = Node::new(Agent::Dawdles);
    node.has_empty_dirs(12);
    match node.survey.guest_facts(&node.pod(), true).await {
        Err(MonitorError::Ask(error)) => assert_hung::<()>(Err(error)),
        other => panic!("{other:?}"),
    }
    assert_eq!(node.sandbox.begun.elapsed(), LIMIT);
}

/// All that is ever sent to a guest: a survey has no way to send anything else.
#[tokio::test(start_paused = true)]
async fn only_calls_that_read_are_sent_to_a_guest() {
    let node = Node::new(Agent::Lives);
    node.ask("c1").await.unwrap();
    node.ask_via("c1", Via::Guest).await.unwrap();
    node.survey.guest_metrics(&node.pod()).await.unwrap();
    for agent in [Agent::Lives, Agent::Refuses] {
        node.becomes(agent);
        node.survey.guest_facts(&node.pod(), true).await.unwrap();
    }
    let other = Node::new(Agent::Refuses);
    other.survey.guest_facts(&other.pod(), true).await.unwrap();
    let sent: HashSet<_> = node
        .calls()
        .into_iter()
        .chain(other.calls())
        .filter_map(|call| call.strip_prefix("guest grpc").map(|call| format!("grpc{call}")))
        .collect();
    let allowed: HashSet<_> = Method::ALL.iter().map(Method::to_string).collect();
    assert_eq!(sent, allowed);
}
