//! Which runtime runs a task, by what its bundle says.

use std::fmt;

use super::bundle::Bundle;
use super::hypervisor;

/// The longest name that is passed on, in characters: a shim's binary can be called anything.
const NAME_LIMIT: usize = 60;

const KATA: &str = "kata";
const RUNC: &str = "runc";

/// A runtime, by the name that people know it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// `runc`, `crun`, `kata`, `gvisor`, …; untrusted text where the shim is none of those that are known.
    pub name: String,
    /// The hypervisor under Kata, where its shim has noted it (see [`hypervisor::virtual_machine`]).
    pub hypervisor: Option<String>,
}

impl Runtime {
    /// The runtime of a task, as its bundle names the shim's binary (`shim-binary-path`; seen on containerd 1.6 to
    /// 2.1, which write it just after the address). Under runc's shim it is the OCI runtime that the shim was told
    /// to call, if any. `sandbox_id` is that of the sandbox that the task is or is in.
    ///
    /// Where the bundle does not name its shim, the traces that shims leave decide; `None` where there are none.
    pub fn of(bundle: &Bundle, sandbox_id: Option<&str>) -> Option<Self> {
        let machine = || hypervisor::virtual_machine(sandbox_id.unwrap_or(&bundle.id));
        match bundle.note("shim-binary-path").as_deref().and_then(by_binary) {
            Some(name) if name == KATA => Some(Self {
                name,
                hypervisor: machine().and_then(|machine| machine.hypervisor),
            }),
            Some(name) if name == RUNC => Some(Self::plain(oci_runtime(bundle).unwrap_or(name))),
            Some(name) => Some(Self::plain(name)),
            None => match machine() {
                Some(machine) => Some(Self {
                    name: KATA.to_string(),
                    hypervisor: machine.hypervisor,
                }),
                None if matches!(bundle.monitor_address(), Ok(Some(_))) => {
                    Some(Self::plain(KATA.to_string()))
                }
                None => oci_runtime(bundle).map(Self::plain),
            },
        }
    }

    fn plain(name: String) -> Self {
        Self {
            name,
            hypervisor: None,
        }
    }

    /// Whether it is Kata Containers.
    pub fn is_kata(&self) -> bool {
        self.name == KATA
    }

    /// Whether people would call it so: by the runtime's name or by the hypervisor's.
    pub fn is_called(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
            || self
                .hypervisor
                .as_ref()
                .is_some_and(|hypervisor| hypervisor.eq_ignore_ascii_case(name))
    }
}

/// `kata (qemu)`, or the name alone.
impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hypervisor {
            Some(hypervisor) => write!(f, "{} ({hypervisor})", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The runtime's name in that of its shim's binary: containerd looks for `containerd-shim-<name>-v<number>`. Kata
/// installs its shim under many names (`containerd-shim-kata-qemu-v2`, …).
fn by_binary(path: &str) -> Option<String> {
    let file = base_name(path)?;
    let name = file.strip_prefix("containerd-shim-").unwrap_or(file);
    let name = match name.rsplit_once("-v") {
        Some((name, number)) if !name.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => name,
    };
    match name {
        "" => None,
        "runsc" => Some("gvisor".to_string()),
        _ if name == KATA || name.starts_with("kata-") => Some(KATA.to_string()),
        _ => Some(name.to_string()),
    }
}

/// The name of the OCI runtime that runc's shim calls, which it notes in every bundle of its own: an empty note where
/// it was told of none, and so calls runc.
fn oci_runtime(bundle: &Bundle) -> Option<String> {
    // It is empty on most nodes, and that is quicker to see than to read.
    if bundle.note_is_empty("runtime") {
        return Some(RUNC.to_string());
    }
    Some(base_name(&bundle.note("runtime")?).unwrap_or(RUNC).to_string())
}

/// The last part of a path, cut to a length that can be printed.
fn base_name(path: &str) -> Option<&str> {
    let name = path.trim().rsplit('/').next().filter(|name| !name.is_empty())?;
    let end = name
        .char_indices()
        .nth(NAME_LIMIT)
        .map_or(name.len(), |(end, _)| end);
    name.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn runtime(files: &[(&str, &str)]) -> Option<Runtime> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let bundle = Bundle {
            state_dir: dir.path().into(),
            namespace: "default".into(),
            id: "no-such-sandbox".into(),
            path: dir.path().into(),
        };
        Runtime::of(&bundle, None)
    }

    fn name(files: &[(&str, &str)]) -> String {
        runtime(files).map_or("-".into(), |runtime| runtime.to_string())
    }

    #[test]
    fn the_shims_binary_names_the_runtime() {
        for (path, expected) in [
            ("/usr/bin/containerd-shim-runc-v2", "runc"),
            (
                include_str!("../../tests/fixtures/kata-3.30-go/bundle-sandbox/shim-binary-path"),
                "kata",
            ),
            ("/opt/kata/bin/containerd-shim-kata-qemu-v2", "kata"),
            ("/usr/local/bin/containerd-shim-runsc-v1\n", "gvisor"),
            ("/usr/bin/containerd-shim-wasmtime-v1", "wasmtime"),
            ("/usr/bin/containerd-shim-aws-firecracker", "aws-firecracker"),
            ("/opt/my-shim", "my-shim"),
            ("/opt/x-v", "x"),
            ("/opt/-v2", "-v2"),
            ("containerd-shim-", "-"),
            ("/", "-"),
            ("", "-"),
        ] {
            assert_eq!(name(&[("shim-binary-path", path)]), expected, "{path:?}");
        }
        let long = format!("/{}", "ä".repeat(500));
        assert_eq!(name(&[("shim-binary-path", &long)]).chars().count(), 60);
    }

    #[test]
    fn runcs_shim_says_which_oci_runtime_it_calls() {
        let runc = ("shim-binary-path", "/usr/bin/containerd-shim-runc-v2");
        // Empty is what containerd 1.6 to 2.1 leave where none was chosen.
        assert_eq!(name(&[runc, ("runtime", "")]), "runc");
        assert_eq!(name(&[runc, ("runtime", "/usr/bin/crun")]), "crun");
        let kata = ("shim-binary-path", "/usr/bin/containerd-shim-kata-v2");
        assert_eq!(name(&[kata, ("runtime", "crun")]), "kata");
    }

    #[test]
    fn without_the_binarys_name_the_traces_of_shims_decide() {
        assert_eq!(name(&[("monitor_address", "unix:///run/m.sock")]), "kata");
        assert_eq!(name(&[("runtime", "crun")]), "crun");
        assert_eq!(name(&[("runtime", "")]), "runc");
        assert_eq!(runtime(&[]), None);
    }

    #[test]
    fn the_hypervisor_is_a_name_too() {
        let kata = Runtime {
            name: "kata".into(),
            hypervisor: Some("clh".into()),
        };
        assert_eq!(kata.to_string(), "kata (clh)");
        assert!(kata.is_called("kata") && kata.is_called("CLH"));
        assert!(!kata.is_called("qemu") && !kata.is_called(""));
    }
}
