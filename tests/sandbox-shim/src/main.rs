//! Stands in for a Kata sandbox, which needs a virtual machine that cannot be had from the package registries.
//!
//! This is a shim v2 that a real containerd launches:
//!
//! ```text
//! ctr run -d --runtime io.containerd.test-sandbox.v2 \
//!     --annotation io.kubernetes.cri.container-type=sandbox \
//!     localhost/busybox:1 pod1 sleep 1000
//! ctr run -d --runtime io.containerd.test-sandbox.v2 \
//!     --annotation io.kubernetes.cri.container-type=container \
//!     --annotation io.kubernetes.cri.sandbox-id=pod1 \
//!     localhost/busybox:1 app1 sleep 1000
//! ```
//!
//! The first command starts one shim process, the second is served by the same one. Each container's process
//! is started by the real `runc` and has a real cgroup, from which `Stats` answers. There is no guest: the
//! sandbox's own process is shown as the hypervisor (`kata_hypervisor_*`), this shim as the agent
//! (`kata_agent_*`), and the host as the guest (`kata_guest_*`, with the sandbox's network namespace).
//!
//! With `sandboxer = "shim"` in CRI's configuration containerd has it manage the sandbox itself: see [`sandbox`].
//!
//! Annotations on the sandbox choose which of Kata's two shims it behaves as: see [`flavour`]. It publishes no
//! events to containerd, and has no exec, terminal, pause or checkpoint.

#![allow(clippy::print_stdout, clippy::print_stderr)] // containerd reads both to the end.

mod agent;
mod cgroup;
mod container;
mod families;
mod flavour;
mod lifecycle;
mod monitor;
mod proc;
mod sandbox;
mod service;
mod spec;
mod text;

use std::process::ExitCode;

/// What containerd passes on the command line, in the syntax of Go's `flag` package.
#[derive(Debug, Default, PartialEq)]
pub struct Args {
    pub namespace: String,
    pub id: String,
    /// containerd's own gRPC socket; it tells the shims of two containerds on one machine apart.
    pub address: String,
    /// Given to `delete` only; the other actions find the bundle as their working directory.
    pub bundle: String,
    pub action: String,
}

impl Args {
    fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self::default();
        let mut args = args.peekable();
        while let Some(arg) = args.next() {
            let Some(flag) = arg.strip_prefix('-') else {
                parsed.action = arg;
                continue;
            };
            let (name, inline) = match flag.trim_start_matches('-').split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag.trim_start_matches('-'), None),
            };
            if matches!(name, "v" | "version") {
                parsed.action = "version".to_owned();
                continue;
            }
            if matches!(name, "debug" | "info") {
                continue;
            }
            let value = inline
                .or_else(|| args.next())
                .ok_or_else(|| format!("-{name} needs a value"))?;
            match name {
                "namespace" => parsed.namespace = value,
                "id" => parsed.id = value,
                "address" => parsed.address = value,
                "bundle" => parsed.bundle = value,
                _ => {}
            }
        }
        Ok(parsed)
    }
}

fn main() -> ExitCode {
    let result = Args::parse(std::env::args().skip(1)).and_then(|args| match args.action.as_str() {
        "start" => lifecycle::start(&args).map_err(|e| format!("start: {e}")),
        "serve" => lifecycle::serve(&args).map_err(|e| format!("serve: {e}")),
        "delete" => lifecycle::delete(&args).map_err(|e| format!("delete: {e}")),
        "version" => {
            println!("{}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        other => Err(format!(
            "unknown action {other:?}: containerd starts this program, people do not"
        )),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("containerd-shim-test-sandbox-v2: {message}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_command_lines_that_containerd_uses() {
        let line =
            "-namespace default -address /c.sock -publish-binary /usr/bin/containerd -id a1 -debug start";
        let args = Args::parse(line.split(' ').map(str::to_owned)).unwrap();
        let expected = Args {
            namespace: "default".into(),
            id: "a1".into(),
            address: "/c.sock".into(),
            bundle: String::new(),
            action: "start".into(),
        };
        assert_eq!(args, expected);

        let line = "--namespace=k8s.io -id=b2 -bundle=/run/x/b2 delete";
        let args = Args::parse(line.split(' ').map(str::to_owned)).unwrap();
        assert_eq!(
            (args.bundle.as_str(), args.action.as_str()),
            ("/run/x/b2", "delete")
        );
        assert!(Args::parse(["-id".to_owned()].into_iter()).is_err());
    }
}
