//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use go_duration as duration;

use exporter_web::ListenAddress;

use crate::kata_monitor_flags::{self, KataMonitorFlags};

/// What a sandboxed container uses and what its sandbox costs, straight from its shim.
#[derive(Parser, Debug)]
#[command(
    name = "kata-runtime",
    version = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("KATA_RUNTIME_COMMIT"), ")"),
    after_help = "Exit status: 0 when the answer was given, 1 when it could not be, 2 for wrong usage.\n\
                  A subcommand that is not listed is handed to the next kata-runtime on PATH."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Args, Debug)]
pub struct Global {
    /// containerd's state directory; may be given more than once [default: the usual ones that exist]
    #[arg(long = "state", value_name = "DIR", global = true)]
    pub state_dirs: Vec<PathBuf>,
    /// containerd's namespace (k8s.io, moby, default, ...) [default: all]
    #[arg(
        short,
        long,
        value_name = "NS",
        env = "CONTAINERD_NAMESPACE",
        hide_env_values = true,
        global = true
    )]
    pub namespace: Option<String>,
    /// How long to wait for each answer, such as 500ms, 3s or 1m30s
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration::parse_positive,
          allow_hyphen_values = true, global = true)]
    pub timeout: Duration,
    /// Say on stderr what is found and asked
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Statistics of containers: an event at once, then one every interval until they stop
    Events(Events),
    /// The node's sandboxes with their containers, then the containers that are in none
    List(List),
    /// Prometheus metrics of a sandbox, as its monitor sends them; a container leads to its sandbox
    Metrics(Metrics),
    /// Serve metrics of all sandboxes and containers on this node, for Prometheus
    Monitor(Monitor),
    /// A live view of everything on this node, in the terminal
    #[cfg(feature = "top")]
    Top(Top),
    /// A script for a shell that completes commands, options and what is on the node
    Completion(Completion),
    #[command(name = "__complete", hide = true)]
    Complete(Complete),
}

#[derive(Args, Debug)]
pub struct Completion {
    #[arg(value_enum)]
    pub shell: Shell,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Args, Debug)]
pub struct Complete {
    /// The words before the cursor, without the program's name, and the one at it
    #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
    pub words: Vec<String>,
}

#[derive(Args, Debug)]
pub struct Events {
    /// Time between two events, such as 500ms, 3s or 1h2m
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = interval, allow_hyphen_values = true)]
    pub interval: Duration,
    /// One event, then exit
    #[arg(long)]
    pub stats: bool,
    /// How to print an event
    #[arg(long, value_enum, default_value_t = EventFormat::Pretty)]
    pub format: EventFormat,
    /// Whom to ask about a container in a Kata guest [default: the guest, then the shim]
    #[arg(long, value_enum, value_name = "WHOM")]
    pub via: Option<EventSource>,
    /// Every container that runs; in a stream also those that are started meanwhile
    #[arg(long, conflicts_with = "containers")]
    pub all: bool,
    /// Ids of containers or beginnings of them, or names: namespace/pod, namespace/pod/container, or a pod's alone
    // Not required for clap: the sentence that users know for a missing id is our own.
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventFormat {
    /// JSON, indented by four spaces
    Pretty,
    /// JSON, one line an event
    Json,
    /// Rows for people, with what was used since the last one
    Table,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventSource {
    /// The shim alone, whether the guest answers or not
    Shim,
    /// The agent in the guest alone; the shim tells the task's state
    Guest,
}

#[derive(Args, Debug)]
pub struct List {
    /// Full ids only, a line each; no shim is asked
    #[arg(short, long)]
    pub quiet: bool,
    /// How to print the list
    #[arg(long, value_enum, default_value_t = ListFormat::Table)]
    pub format: ListFormat,
    /// Show ids in full
    #[arg(long)]
    pub no_trunc: bool,
    /// Pods of this Kubernetes namespace only (--namespace is containerd's)
    #[arg(long, value_name = "NS")]
    pub pod_namespace: Option<String>,
    /// This pod only: its name, or namespace/name
    #[arg(long, value_name = "POD")]
    pub pod: Option<String>,
    /// This runtime only (runc, kata, gvisor, ...), or Kata on this hypervisor (qemu, clh, ...)
    #[arg(long, value_name = "NAME")]
    pub runtime: Option<String>,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListFormat {
    /// Columns for people
    Table,
    /// An array of objects, on one line
    Json,
    /// The table with containerd's namespace, the pod's uid and the shim's socket
    Wide,
}

#[derive(Args, Debug)]
pub struct Metrics {
    /// Ask even where Kata's Rust shim may abort for it, and take the sandbox down
    #[arg(long)]
    pub force: bool,
    /// How to print them [default: raw, or with --summary: table]
    #[arg(long, value_enum)]
    pub format: Option<MetricsFormat>,
    /// Only families whose names start with one of these, such as kata_guest_,kata_shim_fds
    #[arg(long, value_name = "PREFIX,...", conflicts_with = "summary")]
    pub filter: Option<String>,
    /// What the sandbox costs instead: CPU and memory of the VMM, virtiofsd, the shim, the guest and the containers
    #[arg(long)]
    pub summary: bool,
    /// With --summary: look twice, so long apart, and show what was used in between
    #[arg(long, value_name = "DURATION", value_parser = interval, requires = "summary", allow_hyphen_values = true)]
    pub interval: Option<Duration>,
    /// The id of a sandbox or of a container in one, a beginning of it, or a name: namespace/pod, or a pod's alone
    #[arg(value_name = "SANDBOX", default_value = "", hide_default_value = true)]
    pub sandbox: String,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsFormat {
    /// The text as the sandbox's monitor sends it
    Raw,
    /// Columns for people
    Table,
    /// An object, on one line
    Json,
}

#[derive(Args, Debug)]
pub struct Monitor {
    /// Where to listen: HOST:PORT, :PORT for every address of this machine, or unix:///PATH; may be given more than
    /// once. HOST is an IP address or a name in /etc/hosts: DNS is not asked
    #[arg(
        long,
        visible_alias = "web.listen-address",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8090"
    )]
    pub listen_address: Vec<ListenAddress>,
    /// Listen on the sockets that systemd passes instead (socket activation)
    #[arg(long = "web.systemd-socket")]
    pub systemd_socket: bool,
    /// TLS and passwords, in the format of Prometheus's own exporters; read again when it changes
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub web_config_file: Option<PathBuf>,
    /// How many shims to ask at once; those that take long make room for the next
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub max_concurrent: usize,
    #[command(flatten)]
    pub kata_monitor: KataMonitorFlags,
}

#[cfg(feature = "top")]
#[derive(Args, Debug)]
pub struct Top {
    /// Time between two looks at everything, such as 500ms, 2s or 1m
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = interval, allow_hyphen_values = true)]
    pub interval: Duration,
}

/// The shortest interval: shims, and the guests behind them, have other things to do than to answer us.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration::parse_positive(text)?;
    if interval < SHORTEST_INTERVAL {
        return Err(format!(
            "an interval is at least {}, because every look costs every shim a call",
            duration::show(SHORTEST_INTERVAL)
        ));
    }
    Ok(interval)
}

/// Reads the process's arguments.
pub fn parse() -> Result<Cli, clap::Error> {
    Cli::try_parse_from(kata_monitor_flags::in_our_spelling(std::env::args_os()))
}

/// The names of our own subcommands.
pub fn subcommands() -> Vec<String> {
    <Cli as clap::CommandFactory>::command()
        .get_subcommands()
        .map(|command| command.get_name().to_string())
        .chain(["help".to_string()])
        .collect()
}
