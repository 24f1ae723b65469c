//! Where a sandbox's virtual machine runs, and whether the host can see its memory: what may be added up with the
//! processes of this machine, and what may not.

use serde_json::Value;

use super::files;
use super::proc_fs::Roots;

/// A command line of QEMU under Kata has about 4 KB.
const COMMAND_LINE_LIMIT: u64 = 256 << 10;

/// What kind of machine a sandbox's guest runs on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum MachineKind {
    /// A virtual machine of this host, whose memory is memory of its VMM.
    #[default]
    Local,
    /// A virtual machine of this host whose memory is protected from it, and by what, where that is known.
    Confidential(Option<GuestProtection>),
    /// A virtual machine somewhere else, such as a cloud's (Kata's `remote` hypervisor, "peer pods"). This host has
    /// its shim and nothing more.
    PeerPod,
}

/// A technology of confidential computing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GuestProtection {
    /// AMD SEV and SEV-ES.
    Sev,
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// ARM CCA.
    Cca,
    /// IBM Secure Execution (s390x).
    SecureExecution,
    /// POWER's Protected Execution Facility.
    Pef,
}

impl MachineKind {
    /// The kind of a machine whose notes say `self`. The Go shim notes no protection, so the command line of the VMM
    /// is looked at where its pid is known.
    pub fn with_command_line_of(self, vmm_pid: Option<u32>) -> Self {
        self.with_command_line_in(Roots::host(), vmm_pid)
    }

    fn with_command_line_in(self, roots: Roots<'_>, vmm_pid: Option<u32>) -> Self {
        match self {
            Self::PeerPod | Self::Confidential(Some(_)) => self,
            Self::Local | Self::Confidential(None) => vmm_pid
                .and_then(|pid| files::read(&roots.path(pid, "cmdline"), COMMAND_LINE_LIMIT).ok())
                .and_then(|line| by_command_line(&line))
                .map_or(self, |protection| Self::Confidential(Some(protection))),
        }
    }

    /// By the name of a runtime class or its handler, such as `kata-qemu-snp` or `kata-remote`; `None` where the
    /// name does not tell. The names are those of Kata's kata-deploy.
    pub(crate) fn from_handler(name: &str) -> Option<Self> {
        name.split('-').find_map(|part| {
            let protection = match part {
                "remote" => return Some(Self::PeerPod),
                "sev" => GuestProtection::Sev,
                "snp" => GuestProtection::Snp,
                "tdx" => GuestProtection::Tdx,
                "cca" => GuestProtection::Cca,
                "se" => GuestProtection::SecureExecution,
                _ => return None,
            };
            Some(Self::Confidential(Some(protection)))
        })
    }

    pub(super) fn from_hypervisor(name: Option<&str>) -> Self {
        // HYPERVISOR_REMOTE of both of Kata's runtimes.
        match name {
            Some("remote") => Self::PeerPod,
            _ => Self::Local,
        }
    }

    /// From the `hypervisor` object of a Rust shim's `state.json`. With QEMU it has `confidential_guest` in `config`
    /// and always `NoProtection`; with Cloud Hypervisor both are right (runtime-rs 4.1, crates/hypervisor).
    pub(super) fn from_runtime_rs(name: Option<&str>, hypervisor: &Value) -> Self {
        let flag =
            |key| hypervisor.get("config").and_then(|config| config.get(key)) == Some(&Value::Bool(true));
        // `"Tdx"`, or `{"Snp": {…}}`.
        let noted = hypervisor
            .get("guest_protection_to_use")
            .and_then(|noted| match noted {
                Value::String(name) => Some(name.as_str()),
                Value::Object(object) => object.keys().next().map(String::as_str),
                _ => None,
            });
        let protection = match noted {
            Some("Tdx") => Some(GuestProtection::Tdx),
            Some("Sev") => Some(GuestProtection::Sev),
            Some("Snp") => Some(GuestProtection::Snp),
            Some("Pef") => Some(GuestProtection::Pef),
            Some("Se") => Some(GuestProtection::SecureExecution),
            _ => None,
        };
        match Self::from_hypervisor(name) {
            Self::Local if protection.is_some() || flag("confidential_guest") => {
                Self::Confidential(protection)
            }
            kind => kind,
        }
    }

    /// What is special about it, in a word: `peer-pod`, `confidential`, or the protection's name (`tdx`, `snp`, …).
    pub fn word(self) -> Option<&'static str> {
        Some(match self {
            Self::Local => return None,
            Self::PeerPod => "peer-pod",
            Self::Confidential(None) => "confidential",
            Self::Confidential(Some(protection)) => match protection {
                GuestProtection::Sev => "sev",
                GuestProtection::Snp => "snp",
                GuestProtection::Tdx => "tdx",
                GuestProtection::Cca => "cca",
                GuestProtection::SecureExecution => "se",
                GuestProtection::Pef => "pef",
            },
        })
    }

    /// Whether the guest's memory and processor time are those of processes of this host.
    pub fn is_local(self) -> bool {
        self != Self::PeerPod
    }

    /// Whether the memory that the guest has touched is in its VMM's resident memory. That of TDX, SEV-SNP and CCA
    /// guests is KVM's own (`guest_memfd`), which is in no process's; where the protection is not known, it may be.
    pub fn shows_memory(self) -> bool {
        match self {
            Self::Local => true,
            Self::Confidential(Some(
                GuestProtection::Sev | GuestProtection::SecureExecution | GuestProtection::Pef,
            )) => true,
            Self::Confidential(_) | Self::PeerPod => false,
        }
    }
}

/// The protection that QEMU was told to use: `-machine …,confidential-guest-support=ID`, with an `-object` of one of
/// these types (QEMU's docs/system/confidential-guest-support.rst).
fn by_command_line(line: &[u8]) -> Option<GuestProtection> {
    let line = String::from_utf8_lossy(line);
    if !line.contains("confidential-guest-support=") {
        return None;
    }
    [
        ("sev-snp-guest", GuestProtection::Snp),
        ("sev-guest", GuestProtection::Sev),
        ("tdx-guest", GuestProtection::Tdx),
        ("rme-guest", GuestProtection::Cca),
        ("s390-pv-guest", GuestProtection::SecureExecution),
        ("pef-guest", GuestProtection::Pef),
    ]
    .into_iter()
    .find_map(|(object, protection)| line.contains(object).then_some(protection))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::proc_fs::testing::Tree;

    #[test]
    fn qemus_command_line_tells_what_the_go_shim_does_not_note() {
        let tree = Tree::new();
        let plain = "qemu-system-x86_64\0-name\0sandbox-1\0-machine\0q35,accel=kvm,kernel_irqchip=split\0";
        let with =
            |object: &str| format!("{plain}-machine\0q35,confidential-guest-support=x\0-object\0{object}\0");
        for (pid, line, expected) in [
            (1, plain.to_string(), MachineKind::Local),
            (
                2,
                with(r#"{"qom-type":"tdx-guest","id":"tdx"}"#),
                MachineKind::Confidential(Some(GuestProtection::Tdx)),
            ),
            (
                3,
                with("sev-snp-guest,id=snp,cbitpos=51"),
                MachineKind::Confidential(Some(GuestProtection::Snp)),
            ),
            (
                4,
                with("sev-guest,id=sev,cbitpos=51"),
                MachineKind::Confidential(Some(GuestProtection::Sev)),
            ),
            (
                5,
                with("s390-pv-guest,id=pv0"),
                MachineKind::Confidential(Some(GuestProtection::SecureExecution)),
            ),
            (
                6,
                with("pef-guest,id=pef0"),
                MachineKind::Confidential(Some(GuestProtection::Pef)),
            ),
            (
                7,
                with("rme-guest,id=rme0"),
                MachineKind::Confidential(Some(GuestProtection::Cca)),
            ),
            (8, with("something-new"), MachineKind::Local),
        ] {
            tree.file(pid, "cmdline", &line);
            assert_eq!(
                MachineKind::Local.with_command_line_in(tree.roots(), Some(pid)),
                expected,
                "{line}"
            );
        }
        let of = |kind: MachineKind, pid| kind.with_command_line_in(tree.roots(), pid);
        assert_eq!(of(MachineKind::PeerPod, Some(2)), MachineKind::PeerPod);
        assert_eq!(
            of(MachineKind::Confidential(None), Some(2)),
            MachineKind::Confidential(Some(GuestProtection::Tdx))
        );
        assert_eq!(
            of(MachineKind::Confidential(None), Some(99)),
            MachineKind::Confidential(None)
        );
        assert_eq!(of(MachineKind::Local, None), MachineKind::Local);
    }

    #[test]
    fn the_rust_shims_notes() {
        let kind =
            |name, json: &str| MachineKind::from_runtime_rs(Some(name), &serde_json::from_str(json).unwrap());
        let confidential = |protection| MachineKind::Confidential(protection);
        assert_eq!(kind("remote", "{}"), MachineKind::PeerPod);
        assert_eq!(
            kind("clh", r#"{"guest_protection_to_use":"NoProtection"}"#),
            MachineKind::Local
        );
        assert_eq!(
            kind("clh", r#"{"guest_protection_to_use":"Tdx"}"#),
            confidential(Some(GuestProtection::Tdx))
        );
        assert_eq!(
            kind(
                "clh",
                r#"{"guest_protection_to_use":{"Snp":{"cbitpos":51,"phys_addr_reduction":1}}}"#
            ),
            confidential(Some(GuestProtection::Snp))
        );
        assert_eq!(
            kind(
                "qemu",
                r#"{"config":{"confidential_guest":true},"guest_protection_to_use":"NoProtection"}"#
            ),
            confidential(None)
        );
        for odd in ["7", "[]", r#"{"config":7,"guest_protection_to_use":{}}"#] {
            assert_eq!(kind("qemu", odd), MachineKind::Local, "{odd}");
        }
    }

    #[test]
    fn handlers_of_kata_deploy() {
        let confidential = |protection| Some(MachineKind::Confidential(Some(protection)));
        for (name, expected) in [
            ("kata-remote", Some(MachineKind::PeerPod)),
            ("kata-qemu-snp", confidential(GuestProtection::Snp)),
            (
                "kata-qemu-nvidia-gpu-tdx-runtime-rs",
                confidential(GuestProtection::Tdx),
            ),
            ("kata-qemu-se", confidential(GuestProtection::SecureExecution)),
            ("kata-qemu-cca", confidential(GuestProtection::Cca)),
            ("kata-qemu-sev", confidential(GuestProtection::Sev)),
            ("kata-qemu-coco-dev", None),
            ("kata-clh", None),
            ("runc", None),
            ("", None),
        ] {
            assert_eq!(MachineKind::from_handler(name), expected, "{name}");
        }
    }

    #[test]
    fn what_the_host_sees_of_each_kind() {
        let confidential = |protection| MachineKind::Confidential(Some(protection));
        for (kind, local, memory) in [
            (MachineKind::Local, true, true),
            (MachineKind::PeerPod, false, false),
            (MachineKind::Confidential(None), true, false),
            (confidential(GuestProtection::Tdx), true, false),
            (confidential(GuestProtection::Snp), true, false),
            (confidential(GuestProtection::Sev), true, true),
        ] {
            assert_eq!(
                (kind.is_local(), kind.shows_memory()),
                (local, memory),
                "{kind:?}"
            );
        }
    }
}
