//! The list: faults, commands, and what is to come of each pair.

use std::time::Duration;

use crate::commands::{Command, cell};
use crate::ground::{Ground, file, link, monitor, shim, stats_of};
use crate::mock::{self, Call, Reply, V1, V2};

/// What comes of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The numbers are shown, as if nothing were the matter.
    Answered,
    /// The container is said not to run.
    NotRunning,
    /// What came is no answer.
    Wrong,
    /// The deadline passes.
    Silent,
    /// The container has its numbers; its sandbox's page is an error.
    NoPage,
    /// The same, and its sandbox's page takes the time that its numbers would need for a scrape.
    PageSilent,
    /// Its spec cannot be read: its numbers are shown, and what it is to a pod cannot be told.
    NoSpec,
    /// There is no such container.
    Unknown,
}

/// A fault, in one word and in a sentence, and how it is made.
pub struct Fault {
    pub name: &'static str,
    pub about: &'static str,
    pub make: fn(&Ground),
    pub outcome: Outcome,
}

macro_rules! matrix {
    ($($name:ident: $about:literal, $make:expr, $outcome:ident;)*) => {
        pub const FAULTS: &[Fault] = &[$(Fault {
            name: stringify!($name),
            about: $about,
            make: $make,
            outcome: Outcome::$outcome,
        }),*];

        $(mod $name {
            use super::*;

            commands!($name);
        })*
    };
}

macro_rules! commands {
    ($fault:ident) => {
        commands!($fault: events_stats EventsStats, stream Stream, all All, list List, top Top, metrics Metrics, monitor Monitor);
    };
    ($fault:ident: $($name:ident $command:ident),*) => {
        $(#[test]
        fn $name() {
            cell(stringify!($fault), Command::$command);
        })*
    };
}

pub const COMMANDS: [Command; 7] = [
    Command::EventsStats,
    Command::Stream,
    Command::All,
    Command::List,
    Command::Top,
    Command::Metrics,
    Command::Monitor,
];

matrix! {
    healthy: "nothing is the matter", |g| shim(g, mock::healthy), Answered;
    stopped: "the shim was stopped: it takes connections and says nothing", |g| shim(g, |_| Reply::Hang), Silent;
    stopped_at_stats: "the shim answers State and is stopped then", |g| shim(g, at_stats(Reply::Hang)), Silent;
    guest_hung: "the guest hangs: State is answered, Stats and the page are not", guest_hung, Silent;
    killed: "the shim was killed: its socket is there and nobody listens", |g| drop(std::os::unix::net::UnixListener::bind(g.socket()).unwrap()), NotRunning;
    socket_gone: "the shim's socket is not there", |_| (), NotRunning;
    backlog_full: "the shim takes no connection: its backlog is full", Ground::fill_backlog, Silent;
    closes: "the shim closes each connection", |g| shim(g, |_| Reply::Close), Wrong;
    closes_half_way: "the shim closes the connection in the middle of a frame", |g| shim(g, |_| Reply::Raw(mock::frame(1, 2, b"abc")[..12].to_vec())), Wrong;
    closes_at_stats: "the shim closes the connection when it is asked for Stats", |g| shim(g, at_stats(Reply::Close)), Wrong;
    oversized: "a frame says that it has 4 GB", |g| shim(g, |_| Reply::Raw(vec![0xff, 0, 0, 0, 0, 0, 0, 1, 2, 0])), Wrong;
    garbage: "a frame holds no response", |g| shim(g, |_| Reply::Raw(mock::frame(1, 2, &[0xff; 9]))), Wrong;
    no_message: "a response holds no message", |g| shim(g, |_| Reply::Payload(vec![0xff; 9])), Wrong;
    other_kind: "a frame is of another kind", |g| shim(g, |_| Reply::Raw(mock::frame(1, 3, b"abc"))), Wrong;
    other_stream: "answers to calls that nobody has made come first", |g| shim(g, |call| Reply::Noise(Box::new(mock::healthy(call)))), Answered;
    other_container: "State is about another container", |g| shim(g, |_| mock::running_as("another")), Wrong;
    empty_stats: "the Stats reply is empty", |g| shim(g, at_stats(Reply::Payload(vec![]))), Wrong;
    cut_stats: "the statistics are cut off", |g| shim(g, at_stats(mock::stats(V1, &mock::DOCUMENTED[..100]))), Wrong;
    unknown_type: "the statistics are of an unknown type", |g| shim(g, at_stats(mock::stats("x.\x1b[31mY", b""))), Wrong;
    stats_error: "Stats is answered with an error", |g| shim(g, at_stats(Reply::Error(13, "oops \x1b[2J\nmore".into()))), Wrong;
    unknown_id: "the shim does not know the container", |g| shim(g, |_| Reply::Error(5, "not found".into())), NotRunning;
    task_stopped: "the task has stopped and was not deleted", |g| shim(g, |_| mock::stopped(137)), NotRunning;
    no_service: "the shim has no task service", |g| shim(g, |_| Reply::Error(12, "unimplemented".into())), Wrong;
    absurd_v1: "each number is 2^64-1 (cgroup v1)", |g| shim(g, at_stats(mock::stats(V1, &stats_of(1, u64::MAX)))), Answered;
    absurd_v2: "each number is 2^64-1 (cgroup v2)", |g| shim(g, at_stats(mock::stats(V2, &stats_of(2, u64::MAX)))), Answered;
    slow: "each answer takes 30 ms", |g| shim(g, |call| Reply::After(Duration::from_millis(30), Box::new(mock::healthy(call)))), Answered;
    pid_reused: "the task's pid is another process's by now", |g| shim(g, |call| match call.method.as_str() {
        "State" => mock::running(std::process::id()),
        _ => mock::healthy(call),
    }), Answered;
    page_hangs: "the monitor takes the question and says nothing", |g| monitor(g, b"", true), PageSilent;
    page_drips: "the page comes byte by byte", |g| g.drip(&mock::http_ok(&[b'a'; 4096])), PageSilent;
    page_never_ends: "the page has no end", |g| g.flood(b"HTTP/1.1 200 OK\r\n\r\n"), NoPage;
    page_too_short: "the page is shorter than it says", |g| monitor(g, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nkata_shim_threads 1\n", false), NoPage;
    page_two_lengths: "the page says two lengths", |g| monitor(g, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\na 1\n", false), NoPage;
    page_huge_length: "the page says that it has 2^64 bytes", |g| monitor(g, b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\na 1\n", false), NoPage;
    page_bad_chunks: "the page's chunks are none", |g| monitor(g, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\na 1\n\r\n0\r\n\r\n", false), NoPage;
    page_500: "the monitor answers 500", |g| monitor(g, b"HTTP/1.1 500 X\r\nContent-Length: 4\r\n\r\noops", false), NoPage;
    page_redirect: "the monitor sends elsewhere", |g| monitor(g, b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n", false), NoPage;
    page_encoded: "the page is compressed, which nobody asked for", |g| monitor(g, b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\0", false), NoPage;
    page_no_http: "the monitor does not speak HTTP", |g| monitor(g, b"\x1b[31mnot http\r\n\r\n", false), NoPage;
    page_closed: "the monitor closes each connection", |g| monitor(g, b"", false), NoPage;
    page_bad_utf8: "the page is no UTF-8 in parts", |g| monitor(g, &mock::http_ok(b"kata_shim_threads 1\nkata_guest_load 1\nb{c=\"\xff\xfe\"} 2\n"), false), Answered;
    monitor_gone: "nobody listens at the monitor's socket", |g| { drop(std::os::unix::net::UnixListener::bind(g.monitor_socket()).unwrap()); shim(g, mock::healthy); }, NoPage;
    address_empty: "the address file is empty", |g| file(g, "address", b""), Wrong;
    address_garbage: "the address file holds something else", |g| file(g, "address", b"\xff\x00\x1b[31m"), NotRunning;
    address_gigantic: "the address file has 100 MB", |g| g.gigantic("address"), Wrong;
    address_fifo: "the address file is a fifo that nobody writes to", |g| g.fifo("address"), Wrong;
    address_directory: "the address file is a directory", |g| g.directory("address"), Wrong;
    address_loop: "the address file is a link to itself", |g| link(g, "address", "address"), Wrong;
    bootstrap_half: "bootstrap.json is half written", |g| file(g, "bootstrap.json", b"{\"version\":3,\"addr"), Wrong;
    config_half: "config.json is half written", |g| { shim(g, mock::healthy); file(g, "config.json", b"{\"annotations\":{\"io.kub"); }, NoSpec;
    config_fifo: "config.json is a fifo that nobody writes to", |g| { shim(g, mock::healthy); g.fifo("config.json"); }, NoSpec;
    config_directory: "config.json is a directory", |g| { shim(g, mock::healthy); g.directory("config.json"); }, NoSpec;
    config_gigantic: "config.json has 100 MB", |g| { shim(g, mock::healthy); g.gigantic("config.json"); }, NoSpec;
    config_link: "config.json is a link to a file that is none", |g| { shim(g, mock::healthy); link(g, "config.json", "/dev/zero"); }, NoSpec;
    shim_note_directory: "shim-binary-path is a directory", |g| { shim(g, mock::healthy); g.directory("shim-binary-path"); }, Answered;
    bundle_is_a_file: "there is a file where the bundle belongs", Ground::file_for_bundle, Unknown;
    bundle_renamed: "the bundle is being deleted (.<id>)", Ground::rename_bundle, Unknown;
    bundle_without_files: "the bundle is empty: the task is being created", Ground::empty_bundle, Unknown;
    comes_and_goes: "the bundle comes and goes all the time", Ground::come_and_go, Unknown;
}

fn at_stats(reply: Reply) -> impl Fn(&Call) -> Reply + Send + Sync + 'static {
    move |call| match call.method.as_str() {
        "State" => mock::running(0),
        _ => reply.clone(),
    }
}

fn guest_hung(ground: &Ground) {
    monitor(ground, b"", true);
    std::fs::remove_file(ground.socket()).unwrap();
    shim(ground, at_stats(Reply::Hang));
}

/// The table in the documentation, line by line.
fn table() -> String {
    let mut table = String::from("| fault |");
    for command in COMMANDS {
        table += &format!(" {} |", command.title());
    }
    table += "\n|---|";
    table += &"---|".repeat(COMMANDS.len());
    table.push('\n');
    for fault in FAULTS {
        table += &format!("| {} |", fault.about);
        for command in COMMANDS {
            table += &format!(" {} |", command.words(fault.outcome));
        }
        table.push('\n');
    }
    table
}

/// `UPDATE_DOCS=1` writes it.
#[test]
fn the_documented_table_is_this_list() {
    const BEGIN: &str = "<!-- the table begins -->\n";
    const END: &str = "<!-- the table ends -->\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/faults.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (documented, after) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, [before, BEGIN, &table(), END, after].concat()).unwrap();
    } else {
        assert_eq!(documented, table(), "UPDATE_DOCS=1 writes docs/faults.md");
    }
}
