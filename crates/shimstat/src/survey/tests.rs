use super::*;
use crate::node::{Bundle, Container, Description, Layout, Pod, Source};
use crate::shim::Connect;
use crate::shim::address::{Address, Endpoint};
use crate::shim::address::{Protocol, TaskVersion};
use crate::shim::{Connecting, Connection, ShimError, Stream};
use containerd_shim_protos::api::{StateResponse, StatsResponse, Status};
use containerd_shim_protos::cgroups::metrics::{CPUStat, CPUUsage, Metrics};
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;
use ttrpc::proto::{GenMessage, MessageHeader, Request, Response};

const LIMIT: Duration = Duration::from_secs(3);

/// How long a simulated shim takes for each of its answers.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    state: Duration,
    stats: Duration,
    page: Duration,
    /// The task ends before Stats is answered, and the shim says so after this many further States.
    ends_after: Option<usize>,
}

/// Simulated shims: what was called, and how much at once.
#[derive(Default)]
struct Shims {
    paces: HashMap<Address, Pace>,
    calls: Mutex<Vec<String>>,
    in_flight: AtomicUsize,
    most: AtomicUsize,
}

impl Stream for DuplexStream {
    fn peer_pid(&self) -> Option<i32> {
        None
    }
}

struct Simulated(Arc<Shims>);

impl Connect for Simulated {
    fn connect<'a>(&'a self, address: &'a Address) -> Connecting<'a> {
        Box::pin(async move {
            let Some(pace) = self.0.paces.get(address) else {
                return Err(ShimError::Connect {
                    address: address.clone(),
                    source: io::ErrorKind::ConnectionRefused.into(),
                });
            };
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            tokio::spawn(serve(theirs, *pace, self.0.clone()));
            Ok(Box::new(ours) as Connection)
        })
    }
}

impl Shims {
    async fn at_work(&self, call: String, time: Duration) {
        self.calls.lock().unwrap().push(call);
        self.most.fetch_max(
            self.in_flight.fetch_add(1, Ordering::SeqCst) + 1,
            Ordering::SeqCst,
        );
        tokio::time::sleep(time).await;
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

/// Serves one connection: ttrpc, or HTTP where the client speaks that.
async fn serve(mut stream: DuplexStream, pace: Pace, shims: Arc<Shims>) {
    let mut first = [0];
    if stream.read_exact(&mut first).await.is_err() {
        return;
    }
    if first == *b"G" {
        shims.at_work("GET".into(), pace.page).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nup\n")
            .await;
        return;
    }
    let mut before = Some(first);
    let mut states_of_empty = None;
    loop {
        let frame = match before.take() {
            Some(first) => GenMessage::read_from(io::Cursor::new(first).chain(&mut stream)).await,
            None => GenMessage::read_from(&mut stream).await,
        };
        let Ok(frame) = frame else { return };
        let request = Request::parse_from_bytes(&frame.payload).unwrap();
        let time = if request.method == "State" {
            pace.state
        } else {
            pace.stats
        };
        shims.at_work(request.method.clone(), time).await;
        let payload = if request.method == "State" {
            let mut state = StateResponse::new();
            state.pid = 0;
            state.status = Status::RUNNING.into();
            if let Some(states) = &mut states_of_empty {
                *states += 1;
                if pace.ends_after < Some(*states) {
                    state.status = Status::STOPPED.into();
                    state.exit_status = 137;
                }
            }
            state.write_to_bytes()
        } else {
            let usage = CPUUsage {
                total: 7,
                user: 3,
                kernel: 4,
                ..CPUUsage::new()
            };
            let cpu = CPUStat {
                usage: MessageField::some(usage),
                ..CPUStat::new()
            };
            let mut metrics = Metrics {
                cpu: MessageField::some(cpu),
                ..Metrics::new()
            };
            if pace.ends_after.is_some() {
                states_of_empty = Some(0);
                metrics.pids.mut_or_insert_default().limit = 50;
            }
            let any = Any {
                type_url: "io.containerd.cgroups.v1.Metrics".into(),
                value: metrics.write_to_bytes().unwrap(),
                ..Any::new()
            };
            StatsResponse {
                stats: MessageField::some(any),
                ..StatsResponse::new()
            }
            .write_to_bytes()
        };
        let mut response = Response::new();
        response.payload = payload.unwrap();
        let body = response.write_to_bytes().unwrap();
        let header = MessageHeader::new_response(frame.header.stream_id, body.len() as u32);
        let bytes = [Vec::from(header), body].concat();
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

struct Node {
    shims: Arc<Shims>,
    survey: Survey,
}

impl Node {
    /// A node whose shims answer at these paces.
    fn new<const N: usize>(paces: [(&str, Pace); N]) -> Self {
        let paces = paces
            .map(|(path, pace)| (Address::Path(path.into()), pace))
            .into();
        let shims = Arc::new(Shims {
            paces,
            ..Shims::default()
        });
        Self {
            survey: Survey::through(Arc::new(Simulated(shims.clone())), LIMIT, 2),
            shims,
        }
    }
}

fn container(id: &str, shim: &str) -> Arc<Container> {
    let endpoint = Endpoint {
        address: Address::Path(shim.into()),
        protocol: Protocol::Ttrpc,
        version: TaskVersion::V2,
    };
    let bundle = Bundle {
        state_dir: "/run/containerd".into(),
        namespace: "default".into(),
        id: id.into(),
        path: format!("/run/x/{id}").into(),
        layout: Layout::Task,
    };
    Arc::new(Container::new(
        bundle,
        Ok(Source::Task(endpoint)),
        Description::default(),
    ))
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const STATISTICS: Statistics = Statistics {
    network: Network::None,
    via: Via::Both,
};

#[tokio::test(start_paused = true)]
async fn state_is_asked_before_statistics() {
    let node = Node::new([("/s", Pace::default())]);
    let sample = node.survey.ask(&container("c", "/s"), STATISTICS).await.unwrap();
    assert_eq!(sample.stats.cpu.usage.total, Some(7));
    assert_eq!(node.shims.calls(), ["State", "Stats"]);
    let gone = node.survey.ask(&container("c", "/nobody"), STATISTICS).await;
    assert!(
        matches!(gone, Err(AskError::NotRunning(NotRunning::Gone(_)))),
        "{gone:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cgroup_that_was_left_by_its_last_process_is_not_shown_as_running() {
    for (ends_after, calls) in [(0, 3), (2, 5)] {
        let pace = Pace {
            ends_after: Some(ends_after),
            ..Pace::default()
        };
        let node = Node::new([("/s", pace)]);
        let stopped = node.survey.ask(&container("c", "/s"), STATISTICS).await;
        assert!(
            matches!(&stopped, Err(AskError::NotRunning(NotRunning::Stopped(state))) if state.exit_status == Some(137)),
            "{stopped:?}"
        );
        assert_eq!(node.shims.calls().len(), calls, "{:?}", node.shims.calls());
    }
    // Its processes may be in another cgroup.
    let pace = Pace {
        ends_after: Some(1000),
        ..Pace::default()
    };
    let node = Node::new([("/s", pace)]);
    let sample = node.survey.ask(&container("c", "/s"), STATISTICS).await.unwrap();
    assert!(sample.stats.is_emptied());
    assert_eq!(node.shims.calls(), ["State", "Stats", "State", "State", "State"]);
    // Who asks for the last statistics wants these.
    let last = node
        .survey
        .ask(&container("c", "/s"), LastStatistics)
        .await
        .unwrap();
    assert_eq!(last.stats.pids.current, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_shim_whose_state_is_late_is_not_asked_for_statistics() {
    let node = Node::new([(
        "/s",
        Pace {
            state: LIMIT * 2,
            ..Pace::default()
        },
    )]);
    let started = Instant::now();
    let late = node.survey.ask(&container("c", "/s"), STATISTICS).await;
    assert!(
        matches!(&late, Err(AskError::Unanswered { call: "State", .. })),
        "{late:?}"
    );
    assert_eq!(started.elapsed(), LIMIT);
    tokio::time::sleep(LIMIT * 3).await;
    assert_eq!(node.shims.calls(), ["State"]);
}

#[tokio::test(start_paused = true)]
async fn hung_shims_cost_one_deadline_and_are_remembered() {
    let hung = Pace {
        state: LIMIT * 1000,
        ..Pace::default()
    };
    let node = Node::new([("/hung", hung), ("/well", Pace::default())]);
    let mut containers: Vec<_> = (0..8).map(|n| container(&format!("hung{n}"), "/hung")).collect();
    containers.push(container("well", "/well"));
    let started = Instant::now();
    let asking = node.survey.begin(containers.clone(), State).await;
    let answers = asking.answers(LIMIT).await;
    assert_eq!(started.elapsed(), LIMIT);
    for answer in &answers[..8] {
        assert!(matches!(answer, Err(AskError::Unanswered { .. })), "{answer:?}");
    }
    assert!(answers[8].is_ok(), "{:?}", answers[8]);
    // The call is still in flight: the next one does not wait for it, nor send another.
    node.survey.rest();
    let started = Instant::now();
    let again = node.survey.ask(&containers[0], State).await;
    assert!(
        matches!(&again, Err(AskError::Unanswered { waited, .. }) if *waited >= LIMIT),
        "{again:?}"
    );
    assert_eq!(started.elapsed(), Duration::ZERO);
    let calls = node.shims.calls();
    assert_eq!(calls.len(), 2, "one for each shim: {calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_somebody_waits_for_is_not_forgotten() {
    let hung = Pace {
        state: LIMIT * 1000,
        ..Pace::default()
    };
    let slow = Pace {
        state: millis(50),
        ..Pace::default()
    };
    let node = Node::new([("/hung1", hung), ("/hung2", hung), ("/s", slow)]);
    let ask = |id, shim| {
        let (survey, container) = (node.survey.clone(), container(id, shim));
        tokio::spawn(async move { survey.ask(&container, State).await })
    };
    // The two are all that are asked at once; the third waits.
    let waiting = [ask("h1", "/hung1"), ask("h2", "/hung2"), ask("c1", "/s")];
    tokio::time::sleep(millis(10)).await;
    node.survey.rest();
    node.survey.keep(|_| false);
    let other = ask("c2", "/s");
    assert!(other.await.unwrap().is_ok());
    let [_, _, waiting] = waiting;
    assert!(waiting.await.unwrap().is_ok());
    // Two hung calls, and one at a time to the third shim.
    assert_eq!(node.shims.most.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn one_shim_is_asked_one_thing_at_a_time() {
    let node = Node::new([(
        "/s",
        Pace {
            state: millis(5),
            stats: millis(7),
            page: millis(20),
            ends_after: None,
        },
    )]);
    let containers: Vec<_> = (0..6).map(|n| container(&format!("c{n}"), "/s")).collect();
    let mut pod = Pod::unknown_to_containerd("c0".into(), vec![Address::Path("/s".into())]);
    pod.containers = vec![containers[0].clone()];
    let page = node.survey.ask_monitor(&pod, MonitorQuestion::AgentUrl, 100);
    let asking = node.survey.begin(containers.clone(), STATISTICS).await;
    let (page, answers) = tokio::join!(page, asking.answers(LIMIT));
    assert_eq!(page.unwrap().body, b"up\n");
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(node.shims.most.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn after_a_late_answer_the_shim_is_left_alone_for_as_long() {
    let node = Node::new([(
        "/s",
        Pace {
            stats: LIMIT * 2,
            ..Pace::default()
        },
    )]);
    let container = container("c", "/s");
    let late = node.survey.ask(&container, STATISTICS).await;
    assert!(
        matches!(&late, Err(AskError::Unanswered { call: "Stats", .. })),
        "{late:?}"
    );
    let waiting = node.survey.ask(&container, State).await;
    assert!(
        matches!(&waiting, Err(AskError::Unanswered { .. })),
        "{waiting:?}"
    );
    tokio::time::sleep(LIMIT + millis(1)).await;
    let resting = node.survey.ask(&container, State).await;
    assert!(
        matches!(&resting, Err(AskError::Resting { call: "Stats", took, .. }) if *took == LIMIT * 2),
        "{resting:?}"
    );
    tokio::time::sleep(LIMIT * 2).await;
    assert!(node.survey.ask(&container, State).await.is_ok());
    assert_eq!(node.shims.calls(), ["State", "Stats", "State"]);
}

/// In real time: what is tested is that this thread was busy.
#[tokio::test]
async fn a_deadline_counts_only_time_in_which_this_program_could_listen() {
    let paces = [("/s".into(), Pace::default())]
        .map(|(path, pace): (std::path::PathBuf, _)| (Address::Path(path), pace));
    let shims = Arc::new(Shims {
        paces: paces.into(),
        ..Shims::default()
    });
    let limit = millis(100);
    let survey = Survey::through(Arc::new(Simulated(shims.clone())), limit, 2);
    let container = container("c", "/s");
    let asking = survey.begin([container], STATISTICS).await;
    // Busy for three times the limit, between the question and its answer.
    std::thread::sleep(limit * 3);
    let answers = asking.answers(limit * 20).await;
    assert!(answers[0].is_ok(), "{:?}", answers[0]);
    assert_eq!(shims.calls(), ["State", "Stats"]);
}
