//! Which runtime runs a container, by what its bundle and its shim's other traces say.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

use super::bundle::{Bundle, Layout, is_runcs_shim};
use super::files::{self, ReadError};
use super::hypervisor::{self, KataShim};
use super::machine::MachineKind;
use super::proc_fs;
use crate::shim::address::Address;

/// The longest name that is passed on, in characters: a shim's binary can be called anything.
const NAME_LIMIT: usize = 60;

/// A shim's command line has some 300 bytes.
const ARGUMENTS_LIMIT: u64 = 64 << 10;

const KATA: &str = "kata";
const RUNC: &str = "runc";

/// Shims of runwasi and of those that build on it, which run WebAssembly
/// (<https://github.com/containerd/runwasi>, <https://github.com/spinframework/containerd-shim-spin>).
const WASM: [&str; 8] = [
    "wasmtime", "wasmedge", "wasmer", "wamr", "spin", "slight", "lunatic", "wws",
];

/// A runtime, by the name that people know it by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runtime {
    /// `runc`, `crun`, `youki`, `kata`, `gvisor`, `kuasar`, `firecracker`, `urunc`, `wasmtime`, …; untrusted text where the
    /// shim is not a known one.
    pub name: String,
    /// The hypervisor under Kata, where its shim has noted it (see [`hypervisor::virtual_machine`]).
    pub hypervisor: Option<String>,
    /// Which of Kata's two shims it is.
    pub kata_shim: Option<KataShim>,
    /// Where its virtual machine runs, and whether the host sees its memory. `Local` where there is no virtual machine.
    pub machine: MachineKind,
}

/// What there is to tell a runtime by.
#[derive(Debug)]
pub(super) struct Traces<'a> {
    pub bundle: &'a Bundle,
    /// The bundle of the container's sandbox, where the container's own does not name its shim.
    pub sandboxs: Option<Bundle>,
    pub sandbox_id: Option<&'a str>,
    /// The handler of the sandbox's runtime class.
    pub handler: Option<&'a str>,
    /// Where its shim listens.
    pub address: Option<&'a Address>,
    /// The first trace that is there and could not be read.
    pub unread: OnceLock<ReadError>,
}

impl Traces<'_> {
    /// The path of the shim's binary: as containerd noted it in the bundle of the task that the shim was started for
    /// (`shim-binary-path`; seen on 1.6 to 2.4, which write it just after the address), or as the kernel has it, where
    /// another started the shim.
    fn shims_binary(&self) -> Option<String> {
        let noted = |bundle: &Bundle| self.readable(bundle.shim_binary());
        noted(self.bundle)
            .or_else(|| noted(self.sandboxs.as_ref()?))
            .or_else(|| self.shims_executable())
    }

    /// What was read; where it could not be, that is noted.
    fn readable<T>(&self, read: Result<Option<T>, ReadError>) -> Option<T> {
        read.unwrap_or_else(|error| {
            let _ = self.unread.set(error);
            None
        })
    }

    /// Of a shim that CRI-O has started.
    fn shims_executable(&self) -> Option<String> {
        if self.bundle.layout != Layout::Storage || self.address.is_none() {
            return None;
        }
        let pid = self.shim_pid()?;
        let path = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let path = path.to_string_lossy();
        // The kernel's words for a binary that was replaced since, by an upgrade.
        Some(path.strip_suffix(" (deleted)").unwrap_or(&path).to_string())
    }

    /// The pid of the shim: as it has noted it itself, or the parent of the process that it started.
    pub fn shim_pid(&self) -> Option<u32> {
        let bundles = || [Some(self.bundle), self.sandboxs.as_ref()].into_iter().flatten();
        if let Some(noted) = bundles().find_map(Bundle::shim_pid) {
            return Some(noted);
        }
        bundles()
            .filter_map(|bundle| proc_fs::parent(bundle.pid("init.pid")?))
            .find(|pid| self.is_my_shim(*pid))
    }

    /// Whether a process was started as a shim of this container or of its sandbox. A pid can be another's by now.
    pub fn is_my_shim(&self, pid: u32) -> bool {
        let path = format!("/proc/{pid}/cmdline");
        let arguments = files::read(Path::new(&path), ARGUMENTS_LIMIT).unwrap_or_default();
        let ids = [Some(self.bundle.id.as_str()), self.sandbox_id];
        arguments
            .split(|byte| *byte == 0)
            .any(|argument| ids.into_iter().flatten().any(|id| id.as_bytes() == argument))
    }

    pub fn has_runcs_shim(&self) -> bool {
        self.shims_binary().is_some_and(|path| is_runcs_shim(&path))
    }

    /// The name of the OCI runtime that runc's shim calls, which it notes in every bundle of its own: an empty note where
    /// it was told of none, and so calls runc.
    fn oci_runtime(&self) -> Option<String> {
        // It is empty on most nodes, and that is quicker to see than to read.
        if self.bundle.note_is_empty("runtime") {
            return Some(RUNC.to_string());
        }
        Some(
            base_name(&self.bundle.note("runtime")?)
                .unwrap_or(RUNC)
                .to_string(),
        )
    }

    /// Of a container without a shim: the OCI runtime that conmon called, or the one that has kept its state.
    fn runtime_without_shim(&self) -> Option<String> {
        if self.bundle.layout != Layout::Storage || self.address.is_some() {
            return None;
        }
        let told = self.bundle.conmon().and_then(|conmon| conmon.runtime);
        let told = told.and_then(|path| Some(base_name(&path.to_string_lossy())?.to_string()));
        told.or_else(|| {
            let has_state = |root: &str| Path::new("/run").join(root).join(&self.bundle.id).is_dir();
            let mut known = ["crun", RUNC, "youki"].into_iter();
            known.find(|root| has_state(root)).map(str::to_string)
        })
    }

    /// Kuasar's sandboxer is no shim, and has no bundle in containerd's directories. Its sockets are in a directory that
    /// is called after it (`/run/kuasar-vmm`, <https://github.com/kuasar-io/kuasar/blob/main/vmm/common/src/lib.rs>).
    fn is_kuasars(&self) -> bool {
        let path = match self.address {
            Some(Address::Path(path) | Address::Hybrid { socket: path, .. }) => path,
            _ => return false,
        };
        path.strip_prefix("/run")
            .is_ok_and(|path| path.as_os_str().as_bytes().starts_with(b"kuasar"))
    }
}

impl Runtime {
    /// The runtime of a container: by its shim's binary. Under runc's shim it is the OCI runtime that the shim was told
    /// to call, if any.
    ///
    /// Where nothing names the shim, the files that shims leave decide; `None` without any.
    pub(super) fn of(traces: &Traces<'_>) -> Option<Self> {
        let kata = || Self::kata(traces);
        match traces.shims_binary().as_deref().and_then(by_binary) {
            Some(name) if name == KATA => Some(kata().unwrap_or_else(|| Self::plain(name))),
            Some(name) if name == RUNC => Some(Self::plain(traces.oci_runtime().unwrap_or(name))),
            Some(name) => Some(Self::plain(name)),
            None if traces.is_kuasars() => Some(Self::plain("kuasar".to_string())),
            None => kata().or_else(|| {
                // Kata's Go shim notes it in its sandbox's bundle alone.
                let bundles = [Some(traces.bundle), traces.sandboxs.as_ref()];
                let is_kata = bundles
                    .into_iter()
                    .flatten()
                    .any(|bundle| matches!(bundle.monitor_address(), Ok(Some(_))));
                is_kata
                    .then(|| KATA.to_string())
                    .or_else(|| traces.runtime_without_shim())
                    .or_else(|| traces.oci_runtime())
                    .or_else(|| by_handler(traces.handler?))
                    .map(Self::plain)
            }),
        }
    }

    /// Kata, where its shim has noted a virtual machine.
    fn kata(traces: &Traces<'_>) -> Option<Self> {
        let id = traces.sandbox_id.unwrap_or(&traces.bundle.id);
        let machine = traces.readable(hypervisor::virtual_machine(id))?;
        Some(Self {
            name: KATA.to_string(),
            machine: match machine.kind.with_command_line_of(machine.vmm_pid) {
                // What the notes leave open, the name of the runtime class may tell.
                kind @ (MachineKind::Local | MachineKind::Confidential(None)) => {
                    traces.handler.and_then(MachineKind::from_handler).unwrap_or(kind)
                }
                kind => kind,
            },
            hypervisor: machine.hypervisor,
            kata_shim: Some(machine.shim),
        })
    }

    fn plain(name: String) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    /// Whether it is Kata Containers.
    pub fn is_kata(&self) -> bool {
        self.name == KATA
    }

    /// Whether it runs WebAssembly.
    pub(crate) fn is_wasm(&self) -> bool {
        WASM.contains(&self.name.as_str())
    }

    /// Whether people would call it so: by the runtime's name or by the hypervisor's, by which of Kata's shims it is
    /// (`go`, `rust`), by its machine (`peer-pod`, `confidential`, `tdx`, …), or by its kind (`wasm`).
    pub fn is_called(&self, name: &str) -> bool {
        let is = |known: &str| known.eq_ignore_ascii_case(name);
        is(&self.name)
            || self.hypervisor.as_deref().is_some_and(is)
            || self.kata_shim.is_some_and(|shim| is(shim.word()))
            || (matches!(self.machine, MachineKind::Confidential(_)) && is("confidential"))
            || self.machine.word().is_some_and(is)
            || (self.is_wasm() && is("wasm"))
    }

    /// Which of Kata's shims it is, in a word: `go` or `rust`.
    pub fn kata_shim_word(&self) -> Option<&'static str> {
        self.kata_shim.map(KataShim::word)
    }

    /// What is special about its machine, in a word: `peer-pod`, `confidential`, or the protection's name (`tdx`, `snp`, …).
    pub fn machine_word(&self) -> Option<&'static str> {
        self.machine.word()
    }
}

/// `kata (qemu, go)`, `kata (qemu, rust, tdx)`, `kata (peer-pod, go)`, or the name alone.
impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        // A peer pod's hypervisor is called `remote`, which says less.
        let hypervisor = self.hypervisor.as_deref().filter(|_| self.machine.is_local());
        let peer_pod = self.machine.word().filter(|_| !self.machine.is_local());
        let protection = self.machine.word().filter(|_| self.machine.is_local());
        let parts = [hypervisor.or(peer_pod), self.kata_shim_word(), protection];
        let mut separator = " (";
        for part in parts.into_iter().flatten() {
            write!(f, "{separator}{part}")?;
            separator = ", ";
        }
        if separator == ", " {
            f.write_str(")")
        } else {
            Ok(())
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
    known(name)
}

/// The runtime that the handler of a runtime class is most likely called after.
fn by_handler(handler: &str) -> Option<String> {
    known(base_name(handler)?)
}

fn known(name: &str) -> Option<String> {
    let is =
        |known: &str| name == known || name.strip_prefix(known).is_some_and(|rest| rest.starts_with('-'));
    match name {
        "" => None,
        _ if is("runsc") || is("gvisor") => Some("gvisor".to_string()),
        _ if is(KATA) => Some(KATA.to_string()),
        _ if is("kuasar") => Some("kuasar".to_string()),
        // firecracker-containerd's.
        _ if is("aws-firecracker") => Some("firecracker".to_string()),
        _ => Some(name.to_string()),
    }
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
        let bundle = Bundle::of_task("default", "no-such-sandbox", dir.path());
        Runtime::of(&traces(&bundle, None))
    }

    fn traces(bundle: &Bundle, sandboxs: Option<Bundle>) -> Traces<'_> {
        Traces {
            bundle,
            sandboxs,
            sandbox_id: None,
            handler: None,
            address: None,
            unread: OnceLock::new(),
        }
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
            ("/usr/bin/containerd-shim-aws-firecracker", "firecracker"),
            ("/usr/bin/containerd-shim-kuasar-vmm-v2", "kuasar"),
            ("/usr/bin/containerd-shim-urunc-v2", "urunc"),
            ("/opt/kata/runtime-rs/bin/containerd-shim-kata-rs-v2", "kata"),
            ("/usr/bin/containerd-shim-katana-v2", "katana"),
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
    fn what_the_sandbox_s_bundle_says_of_the_shim_counts() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(&path).unwrap();
            Bundle::of_task("k8s.io", &format!("no-such-{name}"), path)
        };
        let (sandbox, container) = (bundle("sandbox"), bundle("container"));
        let binary = |path: &str| fs::write(sandbox.path.join("shim-binary-path"), path).unwrap();
        let of = || {
            let traces = traces(&container, Some(sandbox.clone()));
            let name = Runtime::of(&traces).map_or("-".into(), |runtime| runtime.to_string());
            (name, traces.has_runcs_shim())
        };
        assert_eq!(of(), ("-".into(), false));
        binary("/usr/bin/containerd-shim-runc-v2");
        assert_eq!(of(), ("runc".into(), true));
        // runc's shim notes the runtime of each container.
        fs::write(container.path.join("runtime"), "/usr/bin/youki").unwrap();
        assert_eq!(of(), ("youki".into(), true));
        binary("/opt/kata/bin/containerd-shim-kata-v2");
        assert_eq!(of(), ("kata".into(), false));
    }

    #[test]
    fn a_shim_that_crio_started_is_known_by_its_process_and_else_by_the_handler() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = Bundle {
            state_dir: dir.path().into(),
            namespace: "default".into(),
            id: "no-such-container".into(),
            path: dir.path().into(),
            layout: Layout::Storage,
        };
        let socket = Address::Path("/run/containerd/s/x".into());
        let of = |handler, address| {
            let traces = Traces {
                handler,
                address,
                ..traces(&bundle, None)
            };
            Runtime::of(&traces).map(|runtime| runtime.name)
        };
        assert_eq!(of(None, Some(&socket)), None);
        assert_eq!(of(Some("kata-qemu"), Some(&socket)).as_deref(), Some("kata"));
        assert_eq!(of(Some("runsc"), Some(&socket)).as_deref(), Some("gvisor"));
        // This process stands in for the shim.
        fs::write(dir.path().join("shim.pid"), std::process::id().to_string()).unwrap();
        let own = std::env::current_exe().unwrap();
        let own = own.file_name().unwrap().to_str().unwrap();
        assert_eq!(of(Some("kata"), Some(&socket)).as_deref(), Some(own));
        assert_eq!(of(Some("crun"), None).as_deref(), Some("crun"), "no shim");
    }

    #[test]
    fn kuasar_is_known_by_its_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = Bundle::of_task("k8s.io", "no-such-container", dir.path());
        let at = |path: &str| {
            let address = Address::Path(path.into());
            let traces = Traces {
                address: Some(&address),
                ..traces(&bundle, None)
            };
            Runtime::of(&traces).map(|runtime| runtime.name)
        };
        assert_eq!(at("/run/kuasar-vmm/s1/task.sock").as_deref(), Some("kuasar"));
        assert_eq!(at("/run/containerd/s/kuasar"), None);
    }

    #[test]
    fn a_runtime_is_called_by_all_that_is_known_of_it() {
        let kata = Runtime {
            name: "kata".into(),
            hypervisor: Some("clh".into()),
            ..Runtime::default()
        };
        assert_eq!(kata.to_string(), "kata (clh)");
        let with = |kata_shim, machine| Runtime {
            kata_shim: Some(kata_shim),
            machine,
            ..kata.clone()
        };
        let tdx = with(
            KataShim::Rust,
            MachineKind::Confidential(Some(crate::node::GuestProtection::Tdx)),
        );
        assert_eq!(tdx.to_string(), "kata (clh, rust, tdx)");
        for name in ["kata", "CLH", "rust", "tdx", "Confidential"] {
            assert!(tdx.is_called(name), "{name}");
        }
        for name in ["qemu", "", "go", "snp", "peer-pod", "wasm"] {
            assert!(!tdx.is_called(name), "{name}");
        }
        let remote = with(KataShim::Go, MachineKind::PeerPod);
        assert_eq!(remote.to_string(), "kata (peer-pod, go)");
        assert!(remote.is_called("peer-pod") && !remote.is_called("confidential"));
        assert!(Runtime::plain("spin".into()).is_called("wasm"));
        assert_eq!(Runtime::plain("spin".into()).to_string(), "spin");
    }
}
