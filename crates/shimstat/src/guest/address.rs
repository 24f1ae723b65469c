//! Where a guest's agent listens, as a sandbox's monitor tells it.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::shim::address::decimal;

/// The longest part of a shim's answer that an error shows, in characters.
const SHOWN: usize = 200;

/// The address of a guest's agent: what a monitor answers to `GET /agent-url`.
///
/// Kata's shims write `vsock://<cid>:<port>` for QEMU and StratoVirt, and `hvsock://<path>:<port>` for the hypervisors
/// that bring vsock to the host as a unix socket (Cloud Hypervisor, Firecracker, Dragonball, OpenVMM). Source: Kata 4.1.0,
/// `src/runtime/virtcontainers/types/sandbox.go` and `src/runtime-rs/crates/agent/src/kata/mod.rs` (`agent_sock`).
/// `remote://<path>` (peer pods) is not supported: the agent is on another machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum GuestAddress {
    /// AF_VSOCK.
    Vsock {
        /// The virtual machine.
        cid: u32,
        /// Where the agent listens in it.
        port: u32,
    },
    /// A unix socket of the hypervisor, which leads to a vsock port in the guest after a handshake.
    Hybrid {
        /// The socket, as the shim named it. Untrusted.
        socket: PathBuf,
        /// Where the agent listens in the guest.
        port: u32,
    },
}

/// Why a shim's answer is not an address that can be connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuestAddressError {
    /// The answer is empty.
    #[error("the address is empty")]
    Empty,
    /// Neither `vsock` nor `hvsock`.
    #[error("the address {0:?} is of a kind that is not supported (vsock and hvsock are)")]
    Scheme(String),
    /// The context id is not a number, or not one that a virtual machine of this host can have.
    #[error("{0:?} is not the context id of a virtual machine")]
    Cid(String),
    /// The port is not a number from 1 to 2^32-2.
    #[error("{0:?} is not a vsock port")]
    Port(String),
    /// The path of the hybrid socket does not start at the root directory.
    #[error("the socket {0:?} is not an absolute path")]
    Relative(String),
}

impl GuestAddress {
    /// Reads a monitor's answer.
    pub fn parse(answer: &str) -> Result<Self, GuestAddressError> {
        let answer = answer.trim_matches(['\n', '\r', ' ', '\t']);
        if answer.is_empty() {
            return Err(GuestAddressError::Empty);
        }
        let Some((scheme @ ("vsock" | "hvsock"), rest)) = answer.split_once("://") else {
            return Err(GuestAddressError::Scheme(shown(answer)));
        };
        let (host, port) = rest.rsplit_once(':').unwrap_or((rest, ""));
        let port = decimal(port)
            .filter(|port| (1..u32::MAX).contains(port))
            .ok_or_else(|| GuestAddressError::Port(shown(port)))?;
        if scheme == "vsock" {
            // 0 is the hypervisor of this machine and 2 its host, if it is a guest itself; the largest number is a
            // wildcard. 1 is this machine: no guest, but where loopback tests listen.
            let cid = decimal(host)
                .filter(|cid| *cid != u32::MAX && !matches!(cid, 0 | 2))
                .ok_or_else(|| GuestAddressError::Cid(shown(host)))?;
            Ok(Self::Vsock { cid, port })
        } else if Path::new(host).is_absolute() {
            Ok(Self::Hybrid {
                socket: host.into(),
                port,
            })
        } else {
            Err(GuestAddressError::Relative(shown(host)))
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

impl fmt::Display for GuestAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock { cid, port } => write!(f, "vsock://{cid}:{port}"),
            Self::Hybrid { socket, port } => write!(f, "hvsock://{}:{port}", socket.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_the_shims_write() {
        // Go: fmt.Sprintf("%s://%d:%d") and fmt.Sprintf("%s://%s:%d"); Rust: format!("{}:{}") of the hypervisor's
        // "vsock://{cid}" or "hvsock://{path}" and the port.
        let vsock = GuestAddress::parse("vsock://830455376:1024\n").unwrap();
        assert_eq!(
            vsock,
            GuestAddress::Vsock {
                cid: 830_455_376,
                port: 1024
            }
        );
        assert_eq!(vsock.to_string(), "vsock://830455376:1024");
        let hybrid = "hvsock:///run/kata/6d2b/ch-vm.sock:1024";
        let address = GuestAddress::parse(hybrid).unwrap();
        assert_eq!(
            address,
            GuestAddress::Hybrid {
                socket: "/run/kata/6d2b/ch-vm.sock".into(),
                port: 1024
            }
        );
        assert_eq!(address.to_string(), hybrid);
    }

    #[test]
    fn says_what_it_cannot_connect_to() {
        use GuestAddressError::*;
        for (answer, error) in [
            ("", Empty),
            (" \n", Empty),
            ("vsock", Scheme("vsock".into())),
            (
                "remote:///run/peerpod/agent.ttrpc",
                Scheme("remote:///run/peerpod/agent.ttrpc".into()),
            ),
            ("unix:///run/x:1", Scheme("unix:///run/x:1".into())),
            ("VSOCK://3:1024", Scheme("VSOCK://3:1024".into())),
            ("vsock://3", Port("".into())),
            ("vsock://3:", Port("".into())),
            ("vsock://3:0", Port("0".into())),
            ("vsock://3:+1", Port("+1".into())),
            ("vsock://3:4294967295", Port("4294967295".into())),
            ("vsock://3:4294967296", Port("4294967296".into())),
            ("vsock://:1024", Cid("".into())),
            ("vsock://0:1024", Cid("0".into())),
            ("vsock://2:1024", Cid("2".into())),
            ("vsock://-1:1024", Cid("-1".into())),
            ("vsock://4294967295:1024", Cid("4294967295".into())),
            (
                "vsock://18446744073709551615:1024",
                Cid("18446744073709551615".into()),
            ),
            ("vsock://3:4:1024", Cid("3:4".into())),
            ("hvsock://:1024", Relative("".into())),
            (
                "hvsock://run/kata/x.sock:1024",
                Relative("run/kata/x.sock".into()),
            ),
            ("hvsock:///run/kata/x.sock", Port("".into())),
            // Abstract names are in no directory, and whoever comes first may take them.
            (
                "hvsock://@/run/kata/x.sock:1024",
                Relative("@/run/kata/x.sock".into()),
            ),
            ("hvsock://\0x:1024", Relative("\0x".into())),
        ] {
            assert_eq!(GuestAddress::parse(answer), Err(error), "{answer:?}");
        }
        let long = format!("x{}", "y".repeat(10_000));
        assert!(GuestAddress::parse(&long).unwrap_err().to_string().len() < 400);
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,60}", scheme in "(vsock|hvsock|remote)://.{0,40}") {
            let _ = GuestAddress::parse(&text);
            let _ = GuestAddress::parse(&scheme);
        }
    }
}
