//! kata-monitor's flags, so that `kata-runtime monitor` starts with the arguments that kata-monitor was started with
//! (<https://github.com/kata-containers/kata-containers/blob/main/src/runtime/cmd/kata-monitor/README.md>).
//!
//! They do what they did where that has a meaning here; where not, a line on stderr says so.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::Args;
use exporter_web::TlsFiles;

use crate::exit::Failure;

/// Those that Go's flag package takes with one dash or two.
const NAMES: [&str; 8] = [
    "help",
    "listen-address",
    "log-level",
    "runtime-endpoint",
    "tls-cert-file",
    "tls-cipher-suites",
    "tls-key-file",
    "tls-min-version",
];

/// The options of every command that a value follows.
const WITH_VALUES: [&str; 4] = ["--state", "--namespace", "-n", "--timeout"];

#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Options of kata-monitor, with one dash or two")]
pub struct KataMonitorFlags {
    /// Serve HTTPS with this certificate; read again when it changes
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_key_file",
        conflicts_with = "web_config_file"
    )]
    tls_cert_file: Option<PathBuf>,
    /// The certificate's private key
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_key_file: Option<PathBuf>,
    /// The oldest version of TLS that is offered [default: VersionTLS12]
    #[arg(long, value_name = "VERSION", value_parser = [TLS12, TLS13], hide_possible_values = false, requires = "tls_cert_file")]
    tls_min_version: Option<String>,
    /// The suites of TLS 1.2 that are offered [default: all that are secure]
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        requires = "tls_cert_file"
    )]
    tls_cipher_suites: Vec<String>,
    /// debug and trace are --verbose, and nothing else makes a difference
    #[arg(long, value_name = "LEVEL", hide_short_help = true)]
    log_level: Option<String>,
    /// Not needed: what runs is read from the container runtimes' state directories
    #[arg(long, value_name = "ENDPOINT", hide_short_help = true)]
    runtime_endpoint: Option<String>,
}

const TLS12: &str = "VersionTLS12";
const TLS13: &str = "VersionTLS13";

impl KataMonitorFlags {
    /// Whether more is to be said, as with `--verbose`.
    pub fn is_verbose(&self) -> bool {
        matches!(self.log_level.as_deref(), Some("debug" | "trace"))
    }

    /// What has no meaning here, a line each.
    pub fn without_meaning(&self) -> Vec<String> {
        let endpoint = self.runtime_endpoint.as_ref().map(|endpoint| {
            format!(
                "--runtime-endpoint={endpoint} is not needed: pods and their names are read from the container \
                 runtimes' state directories (--state)"
            )
        });
        let quiet = self
            .log_level
            .as_ref()
            .filter(|level| !self.is_verbose() && *level != "info");
        let level = quiet.map(|level| {
            format!("--log-level={level} makes no difference: debug and trace do, as --verbose")
        });
        endpoint.into_iter().chain(level).collect()
    }

    /// The certificate to serve HTTPS with, where there is one.
    pub fn tls(&self) -> Result<Option<TlsFiles>, Failure> {
        let (Some(cert_file), Some(key_file)) = (&self.tls_cert_file, &self.tls_key_file) else {
            return Ok(None);
        };
        let tls13_only = self.tls_min_version.as_deref() == Some(TLS13);
        if tls13_only && !self.tls_cipher_suites.is_empty() {
            return Err(Failure::usage(
                "--tls-cipher-suites is for TLS 1.2, which --tls-min-version=VersionTLS13 leaves out",
            ));
        }
        Ok(Some(TlsFiles {
            cert_file: cert_file.clone(),
            key_file: key_file.clone(),
            tls13_only,
            cipher_suites: self.tls_cipher_suites.clone(),
        }))
    }
}

/// The command line with kata-monitor's flags after `monitor` in our spelling: two dashes, where Go takes one as well.
pub fn in_our_spelling(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<_> = arguments.collect();
    let mut words = arguments.iter().enumerate().skip(1);
    while let Some((place, word)) = words.next() {
        if word == "monitor" {
            for argument in arguments
                .iter_mut()
                .skip(place + 1)
                .take_while(|argument| *argument != "--")
            {
                if is_one_dashed(argument) {
                    let mut dashed = OsString::from("-");
                    dashed.push(&argument);
                    *argument = dashed;
                }
            }
            break;
        }
        if WITH_VALUES.iter().any(|option| word == option) {
            words.next();
        } else if !word.as_encoded_bytes().starts_with(b"-") {
            break;
        }
    }
    arguments
}

fn is_one_dashed(argument: &OsStr) -> bool {
    let Some(flag) = argument.as_encoded_bytes().strip_prefix(b"-") else {
        return false;
    };
    let name = flag.split(|byte| *byte == b'=').next();
    NAMES.iter().any(|known| Some(known.as_bytes()) == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(line: &str) -> String {
        let words = line.split_whitespace().map(OsString::from);
        let words = in_our_spelling(words).into_iter();
        words
            .map(|word| word.into_string().unwrap())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn one_dash_becomes_two_after_monitor_and_nowhere_else() {
        for (given, expected) in [
            (
                // Kata's helm chart and its DaemonSet.
                "kr monitor -listen-address=0.0.0.0:8090 -log-level=debug -runtime-endpoint=unix:///run/containerd/containerd.sock",
                "kr monitor --listen-address=0.0.0.0:8090 --log-level=debug --runtime-endpoint=unix:///run/containerd/containerd.sock",
            ),
            (
                "kr monitor -listen-address :8090 --tls-cert-file x -tls-key-file y",
                "kr monitor --listen-address :8090 --tls-cert-file x --tls-key-file y",
            ),
            (
                "kr --state /a -n x -v monitor -help",
                "kr --state /a -n x -v monitor --help",
            ),
            ("kr monitor -v -n x -log", "kr monitor -v -n x -log"),
            ("kr monitor -- -log-level=debug", "kr monitor -- -log-level=debug"),
            ("kr list -log-level=debug", "kr list -log-level=debug"),
            (
                "kr --state monitor list -log-level=debug",
                "kr --state monitor list -log-level=debug",
            ),
            (
                "kr events monitor -log-level=debug",
                "kr events monitor -log-level=debug",
            ),
            ("kr", "kr"),
        ] {
            assert_eq!(spelled(given), expected);
        }
    }

    #[test]
    fn what_has_no_meaning_is_said_and_what_has_is_not() {
        let flags = |level: &str, endpoint: Option<&str>| KataMonitorFlags {
            log_level: Some(level.to_string()),
            runtime_endpoint: endpoint.map(str::to_string),
            ..KataMonitorFlags::default()
        };
        assert!(KataMonitorFlags::default().without_meaning().is_empty());
        for (level, verbose, lines) in [
            ("info", false, 0),
            ("debug", true, 0),
            ("trace", true, 0),
            ("warn", false, 1),
        ] {
            let flags = flags(level, None);
            assert_eq!(
                (flags.is_verbose(), flags.without_meaning().len()),
                (verbose, lines),
                "{level}"
            );
        }
        let lines = flags("error", Some("unix:///x.sock")).without_meaning();
        assert!(
            lines[0].contains("--runtime-endpoint=unix:///x.sock") && lines[1].contains("--log-level=error")
        );
    }
}
