//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use go_duration as duration;

use exporter_web::ListenAddress;
use shimstat::node::pace::Pace;

use crate::kata_monitor_flags::{self, KataMonitorFlags};

/// What a command's status says; that of a stream is the same.
macro_rules! exit_status {
    () => {
        "Exit status:
  0  the answer was given; a stream ended because its containers did, or by Ctrl-C
  1  the answer could not be given, or not all of it: the reason is on stderr
  2  the command line is wrong"
    };
}

macro_rules! examples {
    ($examples:literal) => {
        concat!("Examples:\n", $examples, "\n\n", exit_status!())
    };
}

/// What sandboxed containers use, and what their sandboxes cost
///
/// The containers' shims are asked directly, for every runtime that containerd
/// starts through shim v2 (Kata Containers, gVisor, runc, ...). containerd and
/// the kubelet are not asked, and need not run. Only root may do this.
#[derive(Parser, Debug)]
#[command(
    name = "kata-runtime",
    version = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("KATA_RUNTIME_COMMIT"), ")"),
    verbatim_doc_comment,
    after_help = "`kata-runtime <COMMAND> --help` has examples.\n\
                  A command that is not listed is passed to the next kata-runtime on PATH.",
    after_long_help = concat!(
        "`kata-runtime <COMMAND> --help` has examples.\n\
         A command that is not listed is passed to the next kata-runtime on PATH.\n\n",
        exit_status!()
    )
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options of every command.
#[derive(Args, Debug)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// containerd's state directory, or CRI-O's or podman's run root; may be repeated [default: the usual ones that exist]
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
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = positive,
          allow_hyphen_values = true, global = true)]
    pub timeout: Duration,
    /// Print to stderr what is found and asked
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// A command's arguments are built once it is known that it was called: building those of all took an eighth of `events`.
#[derive(Subcommand, Debug)]
#[command(defer = true)]
pub enum Command {
    /// Print statistics of containers, once or as a stream
    ///
    /// An event is printed for each container at once, and then at every interval
    /// until they have stopped. The JSON is that of `runc events`; a stream also
    /// has events of the types oom (a process was OOM-killed) and exit.
    #[command(verbatim_doc_comment, after_long_help = examples!("  kata-runtime events --stats 5779b2366f47
      One event of the container whose id starts with this
  kata-runtime events --interval 1s --format json shop/web-0/nginx
      A stream of a pod's container, one line per event
  kata-runtime events --all --stats -o table --sort -memory
      Everything that runs, the largest first"))]
    Events(Events),
    /// List the sandboxes on this node with their containers, then the other containers
    #[command(after_long_help = examples!("  kata-runtime list --pod shop/web-0
      A pod's sandbox and its containers
  kata-runtime list --runtime kata --quiet
      The ids of all containers that Kata runs
  kata-runtime list --format json | jq '.[] | select(.status != \"running\")'
      Everything that does not run"))]
    List(List),
    /// Print the Prometheus metrics of a sandbox, as its monitor serves them
    ///
    /// Only Kata's sandboxes have a monitor. A container leads to its sandbox.
    #[command(verbatim_doc_comment, after_long_help = examples!("  kata-runtime metrics shop/web-0
      The metrics of a pod's sandbox
  kata-runtime metrics --format table --filter kata_guest_ 5779b2366f47
      Those of its guest, as a table
  kata-runtime metrics --summary --interval 5s shop/web-0
      What the sandbox costs beyond its containers, over five seconds"))]
    Metrics(Metrics),
    /// Serve the metrics of all sandboxes and containers on this node to Prometheus
    #[command(after_long_help = examples!("  kata-runtime monitor
      Serves http://127.0.0.1:8090/metrics
  kata-runtime monitor --listen-address :8090 --web.config.file web.yml
      Serves every address of this machine, with TLS and passwords
  kata-runtime monitor --profile lean --families kata_guest_load,-container_oom_
      Serves what alerts need, with the guests' load and without OOM kills"))]
    Monitor(Monitor),
    #[cfg(feature = "top")]
    /// Watch all containers on this node, live in the terminal
    #[command(after_long_help = examples!("  kata-runtime top --interval 1s
      Looks every second; press ? for what the keys and columns are"))]
    Top(Top),
    /// Print a script that completes commands, options and names in a shell
    #[command(after_long_help = examples!("  source <(kata-runtime completion bash)
      Completes in this bash"))]
    Completion(Completion),
    #[command(name = "__complete", hide = true)]
    Complete(Complete),
    #[cfg(feature = "man")]
    #[command(name = "__man", hide = true)]
    Man(ManPages),
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

#[cfg(feature = "man")]
#[derive(Args, Debug)]
pub struct ManPages {
    /// Where to write the manual pages
    pub directory: PathBuf,
}

#[derive(Args, Debug)]
pub struct Pacing {
    /// Ask about each container at most once in this time [default: 10s for shims that start processes to answer
    /// (gVisor's), no limit for others]
    #[arg(long = "pace", value_name = "DURATION", value_parser = pace, allow_hyphen_values = true)]
    least_interval: Option<Duration>,
}

impl Pacing {
    pub fn pace(&self) -> Pace {
        Pace {
            least_interval: self.least_interval,
        }
    }
}

#[derive(Args, Debug)]
pub struct Events {
    /// Time between two events, such as 500ms, 3s or 1h2m; at least 100ms
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = interval, allow_hyphen_values = true)]
    pub interval: Duration,
    /// Print one event per container, then exit
    ///
    /// In a table or as CSV each container is looked at twice, a second apart:
    /// the rates are those of that second, as with `docker stats --no-stream`.
    #[arg(long, verbatim_doc_comment)]
    pub stats: bool,
    /// How to print events
    #[arg(short = 'o', long, visible_alias = "output", value_enum, default_value_t = EventFormat::Pretty)]
    pub format: EventFormat,
    /// Whom to ask about a container in a Kata guest [default: the guest, then the shim]
    #[arg(long, value_enum, value_name = "WHOM")]
    pub via: Option<EventSource>,
    /// All running containers; a stream follows new ones as well
    #[arg(long, conflicts_with = "containers")]
    pub all: bool,
    /// Continue until the containers have stopped, which is what happens without --stats
    #[arg(short, long, conflicts_with = "stats")]
    pub watch: bool,
    #[command(flatten)]
    pub table: TableOptions,
    #[command(flatten)]
    pub pacing: Pacing,
    /// Container ids or unique prefixes of them, or names: namespace/pod/container, namespace/pod, pod
    // Not required for clap: the sentence that users know for a missing id is our own.
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventFormat {
    /// JSON, indented by four spaces
    Pretty,
    /// JSON, one line per event
    #[value(alias = "jsonl")]
    Json,
    /// Rows for people, with rates since the row before
    Table,
    /// The table with all its columns
    Wide,
    /// Comma-separated values without units, which the headings name
    Csv,
}

impl EventFormat {
    /// Whether it has rates, which take two looks.
    pub fn has_rates(self) -> bool {
        matches!(self, Self::Table | Self::Wide | Self::Csv)
    }
}

// What a table shows, and in which order. (As a doc comment it would be the help of the commands that have it.)
#[derive(Args, Debug)]
pub struct TableOptions {
    /// In a table: only these columns, in this order: their headings, with a dash for a blank (pod,pod-uid)
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    pub columns: Vec<String>,
    /// In a table: sort the rows by a column, or by -COLUMN with the largest first
    #[arg(long, value_name = "COLUMN", allow_hyphen_values = true)]
    pub sort: Option<String>,
    /// In a table: print no headings
    #[arg(long)]
    pub no_headers: bool,
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
    /// Print full ids only, one per line; no shim is asked
    #[arg(short, long)]
    pub quiet: bool,
    /// How to print the list
    #[arg(short = 'o', long, visible_alias = "output", value_enum, default_value_t = ListFormat::Table)]
    pub format: ListFormat,
    /// Print full ids in the table
    #[arg(long)]
    pub no_trunc: bool,
    /// Only pods of this Kubernetes namespace (--namespace is containerd's)
    #[arg(long, value_name = "NS")]
    pub pod_namespace: Option<String>,
    /// Only this pod: its name, or namespace/name
    #[arg(long, value_name = "POD")]
    pub pod: Option<String>,
    /// Only this runtime (runc, kata, gvisor, wasm, ...), or Kata on this hypervisor (qemu, clh, ...), by this shim (go,
    /// rust) or on this kind of machine (confidential, tdx, peer-pod, ...)
    #[arg(long, value_name = "NAME")]
    pub runtime: Option<String>,
    /// Print where containers are looked for, and what is there, instead of the list
    #[arg(long, conflicts_with_all = ["quiet", "no_trunc", "pod_namespace", "pod", "runtime", "watch", "columns", "sort"])]
    pub places: bool,
    /// Continue, and print what is new, has changed or is gone
    #[arg(short, long, conflicts_with = "quiet")]
    pub watch: bool,
    /// With --watch: time between two looks, such as 500ms, 2s or 1m; at least 100ms
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = interval, requires = "watch", allow_hyphen_values = true)]
    pub interval: Duration,
    #[command(flatten)]
    pub table: TableOptions,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListFormat {
    /// Columns for people
    Table,
    /// An array of objects, on one line
    Json,
    /// An object for each container, on a line of its own
    Jsonl,
    /// Comma-separated values without units, which the headings name
    Csv,
    /// The table, with containerd's namespace, the pod's uid and the shim's socket
    Wide,
}

#[derive(Args, Debug)]
pub struct Metrics {
    /// Ask even where that may kill the sandbox
    ///
    /// Up to 4.1, Kata's Rust shim aborts when it is asked for the metrics of a
    /// sandbox on QEMU or Firecracker, and takes the sandbox down.
    #[arg(long, verbatim_doc_comment)]
    pub force: bool,
    /// How to print them [default: raw, or table with --summary]
    #[arg(short = 'o', long, visible_alias = "output", value_enum)]
    pub format: Option<MetricsFormat>,
    /// Only families with one of these prefixes, such as kata_guest_,kata_shim_fds
    #[arg(long, value_name = "PREFIX,...", conflicts_with = "summary")]
    pub filter: Option<String>,
    /// Print what the sandbox costs instead: CPU and memory of each of its parts
    ///
    /// The parts are the VMM, virtiofsd, the shim, the guest and the containers.
    #[arg(long, verbatim_doc_comment)]
    pub summary: bool,
    /// With --summary: look twice, this long apart, and print what was used in between
    #[arg(long, value_name = "DURATION", value_parser = interval, requires = "summary", allow_hyphen_values = true)]
    pub interval: Option<Duration>,
    /// The id of a sandbox or of a container in it, a unique prefix of one, or a name: namespace/pod, pod
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
    /// An object for each sample, on a line of its own
    Jsonl,
    /// Comma-separated values
    Csv,
}

#[derive(Args, Debug)]
pub struct Monitor {
    /// Where to listen: HOST:PORT, :PORT for every address, or unix:///PATH; may be repeated
    ///
    /// HOST is an IP address, or a name in /etc/hosts: DNS is not asked.
    #[arg(
        long,
        visible_alias = "web.listen-address",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8090",
        verbatim_doc_comment
    )]
    pub listen_address: Vec<ListenAddress>,
    /// Listen on the sockets that systemd passes (socket activation) instead
    #[arg(long = "web.systemd-socket")]
    pub systemd_socket: bool,
    /// TLS and passwords, in the format of Prometheus's own exporters; reread when it changes
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub web_config_file: Option<PathBuf>,
    /// How much to serve
    #[arg(long, value_enum, default_value_t)]
    pub profile: Profile,
    /// Only families with these prefixes, or with --profile lean these as well; -PREFIX leaves families out
    #[arg(
        long,
        value_name = "[-]PREFIX,...",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub families: String,
    /// How many shims to ask at once; a slow one makes room for the next
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub max_concurrent: usize,
    #[command(flatten)]
    pub pacing: Pacing,
    #[command(flatten)]
    pub kata_monitor: KataMonitorFlags,
}

#[derive(ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Profile {
    /// All that there is: kata-monitor's page and more
    #[default]
    Full,
    /// What alerts and capacity planning need; the sandboxes' own pages are not asked for
    Lean,
}

#[cfg(feature = "top")]
#[derive(Args, Debug)]
pub struct Top {
    /// Time between two looks, such as 500ms, 2s or 1m; at least 100ms
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = interval, allow_hyphen_values = true)]
    pub interval: Duration,
    #[command(flatten)]
    pub pacing: Pacing,
}

/// The shortest interval: a look costs every shim a call, and every guest behind them.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

fn positive(text: &str) -> Result<Duration, String> {
    duration::parse_positive(text).map_err(with_examples)
}

fn with_examples(error: duration::DurationError) -> String {
    format!("{error} (examples: 500ms, 3s, 1m30s)")
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = positive(text)?;
    if interval < SHORTEST_INTERVAL {
        return Err(format!(
            "it must be at least {}, because each look costs each shim a call",
            duration::show(SHORTEST_INTERVAL)
        ));
    }
    Ok(interval)
}

fn pace(text: &str) -> Result<Duration, String> {
    let nanos = duration::parse_nanos(text).map_err(with_examples)?;
    let nanos = u64::try_from(nanos).map_err(|_| "it must not be negative")?;
    Ok(Duration::from_nanos(nanos))
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_long_help_of_every_command_has_examples_that_are_taken_and_the_exit_statuses() {
        let mut program = Cli::command();
        program.build();
        for command in program.get_subcommands_mut().filter(|command| {
            // clap's own, and what shells call.
            !command.is_hide_set() && command.get_name() != "help"
        }) {
            let long = command.render_long_help().to_string();
            let examples = long.split("Examples:\n").nth(1).unwrap_or_default();
            let (examples, statuses) = examples.split_once("\n\nExit status:\n").unwrap();
            assert!(
                examples.contains("kata-runtime ") && statuses.contains("  2  "),
                "{long}"
            );
            for line in examples
                .lines()
                .filter(|line| line.starts_with("  kata-runtime "))
            {
                let words = line.split_whitespace().take_while(|word| *word != "|");
                let parsed = Cli::try_parse_from(words);
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
            }
            let short = command.render_help().to_string();
            assert!(!short.contains("Examples:"), "{short}");
            assert!(long.lines().all(|line| line.chars().count() <= 100), "{long}");
        }
    }
}
