//! Where a shim listens, as it is written in a task's bundle.

use std::fmt;
use std::path::{Path, PathBuf};

/// A shim's socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// A socket file.
    Path(PathBuf),
    /// A name in Linux's abstract socket namespace, without its leading NUL.
    Abstract(Vec<u8>),
    /// A port of a virtual machine, for shims in a guest.
    Vsock {
        /// The virtual machine's context id.
        cid: u32,
        /// The vsock port in it.
        port: u32,
    },
    /// A port of a virtual machine by way of its hypervisor's socket file.
    Hybrid {
        /// The hypervisor's socket.
        socket: PathBuf,
        /// The vsock port in the guest.
        port: u32,
    },
}

/// The generation of the task service that a shim says it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskVersion {
    /// `containerd.task.v2.Task`: Kata's shims, and runc's with containerd 1.x.
    V2,
    /// `containerd.task.v3.Task`: runc's shim with containerd 2.x.
    V3,
}

/// What a shim speaks on its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// ttrpc, as nearly all do.
    Ttrpc,
    /// gRPC, as some sandboxers' shims do. The services and messages are the same.
    #[cfg(feature = "grpc")]
    Grpc,
}

/// A shim's socket and how to speak to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: Address,
    /// What it speaks.
    pub protocol: Protocol,
    /// The generation of the task service that is tried first.
    pub version: TaskVersion,
}

/// Why a text names no socket that we can call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing is left once white space and the scheme are taken off.
    #[error("the address is empty")]
    Empty,
    /// Shims do not listen on sockets with this scheme; the address.
    #[error("the address {0:?} is of a kind that is not supported (unix, vsock and hvsock are)")]
    Scheme(String),
    /// The numbers after `vsock://` or `hvsock://` are missing or too large; the address.
    #[error(
        "the address {0:?} does not name a port of a virtual machine (vsock://<cid>:<port>, hvsock://<path>:<port>)"
    )]
    Port(String),
    /// The shim speaks gRPC, and this library was built without its feature `grpc`; the shim's address.
    #[error("the shim at {0} speaks gRPC, which this program was built without")]
    Grpc(Address),
    /// The shim speaks a protocol that is not known; its name.
    #[error("the shim speaks {0:?}, and only ttrpc and gRPC are supported")]
    Protocol(String),
    /// The shim serves a task service that is not known; its version.
    #[error("the shim speaks version {0} of the task service, and only 2 and 3 are supported")]
    Version(i64),
    /// `bootstrap.json` is not as containerd writes it; what is wrong with it.
    #[error("not the JSON that containerd writes: {0}")]
    Json(String),
}

impl Address {
    /// Reads an address as containerd writes and dials it: `unix://` and a path, `vsock://<cid>:<port>`,
    /// `hvsock://<path>:<port>`; without a scheme, an abstract name
    /// (<https://github.com/containerd/containerd/blob/main/pkg/shim/util_unix.go>, `AnonDialer`).
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let text = trimmed(text);
        let shown = || text.chars().take(SHOWN).collect();
        let port = |text: &str| decimal(text).ok_or_else(|| AddressError::Port(shown()));
        match text.split_once("://") {
            Some(("unix", "")) => Err(AddressError::Empty),
            // Kata up to 2.1 writes abstract names as `unix://@name`, Go's spelling of the leading NUL.
            Some(("unix", path)) => match path.strip_prefix(['@', '\0']) {
                Some(name) => Self::abstract_name(name),
                None => Ok(Self::Path(path.into())),
            },
            Some(("vsock", rest)) => {
                let (cid, number) = rest.split_once(':').unwrap_or((rest, ""));
                Ok(Self::Vsock {
                    cid: port(cid)?,
                    port: port(number)?,
                })
            }
            Some(("hvsock", rest)) => {
                let (path, number) = rest.rsplit_once(':').unwrap_or((rest, ""));
                if path.is_empty() {
                    return Err(AddressError::Port(shown()));
                }
                Ok(Self::Hybrid {
                    socket: path.into(),
                    port: port(number)?,
                })
            }
            Some(_) => Err(AddressError::Scheme(shown())),
            None => Self::abstract_name(text.strip_prefix(['@', '\0']).unwrap_or(text)),
        }
    }

    fn abstract_name(name: &str) -> Result<Self, AddressError> {
        if name.is_empty() {
            Err(AddressError::Empty)
        } else {
            Ok(Self::Abstract(name.as_bytes().to_vec()))
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            // The spelling of ss(8) and of Go.
            Self::Abstract(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
            Self::Vsock { cid, port } => write!(f, "vsock://{cid}:{port}"),
            Self::Hybrid { socket, port } => write!(f, "hvsock://{}:{port}", socket.display()),
        }
    }
}

impl Endpoint {
    /// The same shim where its directory of sockets is mounted elsewhere: a path below `from` is one below `to`.
    pub(crate) fn moved(self, from: &Path, to: &Path) -> Self {
        let address = match self.address {
            Address::Path(path) => Address::Path(match path.strip_prefix(from) {
                Ok(below) => to.join(below),
                Err(_) => path,
            }),
            other => other,
        };
        Self { address, ..self }
    }

    /// The contents of a bundle's `address` file (containerd 1.x, CRI-O), for which version 2 is assumed.
    pub fn from_address_file(text: &str) -> Result<Self, AddressError> {
        Self::at(text, "", TaskVersion::V2)
    }

    /// A shim at an address that may have the protocol before it (`ttrpc+unix://…`), as sandboxers tell them to
    /// containerd. Without a protocol it is ttrpc. As in containerd, its case does not matter.
    fn at(address: &str, protocol: &str, version: TaskVersion) -> Result<Self, AddressError> {
        let address = trimmed(address);
        let scheme = address.split_once("://").map_or("", |(scheme, _)| scheme);
        let (protocol, address) = match scheme.split_once('+') {
            Some((before, _)) => (before, address.get(before.len() + 1..).unwrap_or_default()),
            None => (protocol, address),
        };
        let address = Address::parse(address)?;
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "" | "ttrpc" => Protocol::Ttrpc,
            #[cfg(feature = "grpc")]
            "grpc" => Protocol::Grpc,
            #[cfg(not(feature = "grpc"))]
            "grpc" => return Err(AddressError::Grpc(address)),
            _ => return Err(AddressError::Protocol(protocol.chars().take(40).collect())),
        };
        Ok(Self {
            address,
            protocol,
            version,
        })
    }

    /// The contents of a bundle's `bootstrap.json` (containerd 2.x):
    /// `{"version":2|3,"address":"unix://…","protocol":"ttrpc"|"grpc"}`.
    pub(crate) fn from_bootstrap(json: &[u8]) -> Result<Self, AddressError> {
        let value: serde_json::Value =
            serde_json::from_slice(json).map_err(|e| AddressError::Json(e.to_string()))?;
        let address = value
            .get("address")
            .and_then(|a| a.as_str())
            .ok_or_else(|| AddressError::Json("it has no text \"address\"".to_string()))?;
        let protocol = value.get("protocol").and_then(|p| p.as_str()).unwrap_or_default();
        let version = match value.get("version") {
            // containerd's own reading of a missing version is 2.
            None => TaskVersion::V2,
            Some(version) => match version.as_i64() {
                Some(0..=2) => TaskVersion::V2,
                Some(3) => TaskVersion::V3,
                Some(other) => return Err(AddressError::Version(other)),
                None => {
                    return Err(AddressError::Json(
                        "its \"version\" is no whole number".to_string(),
                    ));
                }
            },
        };
        Self::at(address, protocol, version)
    }
}

/// The longest part of an address that an error shows, in characters.
const SHOWN: usize = 200;

fn trimmed(text: &str) -> &str {
    text.trim_matches(['\n', '\r', ' ', '\t'])
}

/// A number in digits alone: `str::parse` takes a sign as well.
pub(crate) fn decimal(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GO_SHIM: &str = include_str!("../../tests/fixtures/kata-3.30-go/bundle-sandbox/bootstrap.json");
    const SOCKET: &str = "/run/containerd/s/e88d0b010538e89a2f42a8c0d11fe2418de893f3b0195ba0690b9d656fc87715";

    #[test]
    fn reads_the_bundle_of_a_kata_sandbox() {
        let endpoint = Endpoint::from_bootstrap(GO_SHIM.as_bytes()).unwrap();
        assert_eq!(
            endpoint,
            Endpoint {
                address: Address::Path(SOCKET.into()),
                protocol: Protocol::Ttrpc,
                version: TaskVersion::V2
            }
        );
        let old = include_str!("../../tests/fixtures/kata-3.30-go/bundle-sandbox/address");
        assert_eq!(Endpoint::from_address_file(old).unwrap(), endpoint);
    }

    #[test]
    fn without_a_scheme_the_address_is_abstract() {
        let name = "/containerd-shim/k8s.io/abc/shim.sock";
        for text in [
            name.to_string(),
            format!("@{name}"),
            format!("unix://@{name}"),
            format!("{name}\n"),
        ] {
            assert_eq!(
                Address::parse(&text),
                Ok(Address::Abstract(name.as_bytes().to_vec())),
                "{text:?}"
            );
        }
        assert_eq!(Address::parse(name).unwrap().to_string(), format!("@{name}"));
    }

    #[test]
    fn says_what_it_cannot_speak() {
        assert_eq!(Address::parse(""), Err(AddressError::Empty));
        assert_eq!(Address::parse("unix://"), Err(AddressError::Empty));
        assert_eq!(
            Address::parse("tcp://127.0.0.1:1"),
            Err(AddressError::Scheme("tcp://127.0.0.1:1".into()))
        );
        for text in [
            "vsock://2",
            "vsock://:1",
            "vsock://2:-1",
            "vsock://2:4294967296",
            "hvsock://x",
            "hvsock://:1",
        ] {
            assert_eq!(
                Address::parse(text),
                Err(AddressError::Port(text.into())),
                "{text}"
            );
        }
        let other = br#"{"version":3,"address":"unix:///s","protocol":"thrift"}"#;
        assert_eq!(
            Endpoint::from_bootstrap(other),
            Err(AddressError::Protocol("thrift".into()))
        );
        let newer = br#"{"version":4,"address":"unix:///s","protocol":"ttrpc"}"#;
        assert_eq!(Endpoint::from_bootstrap(newer), Err(AddressError::Version(4)));
        for broken in [
            &b""[..],
            b"{",
            b"[]",
            b"{\"version\":2}",
            b"{\"address\":\"unix:///s\",\"version\":\"3\"}",
        ] {
            assert!(
                matches!(Endpoint::from_bootstrap(broken), Err(AddressError::Json(_))),
                "{broken:?}"
            );
        }
    }

    #[test]
    fn addresses_of_sandboxers_have_a_protocol_and_lead_into_guests() {
        let address = |text: &str| Endpoint::from_address_file(text).map(|endpoint| endpoint.address);
        let path = Address::Path("/run/containerd/s/00e2".into());
        assert_eq!(address("ttrpc+unix:///run/containerd/s/00e2"), Ok(path.clone()));
        assert_eq!(address("TTRPC+unix:///run/containerd/s/00e2"), Ok(path.clone()));
        let grpc = Endpoint::from_address_file("GRPC+unix:///run/containerd/s/00e2");
        #[cfg(feature = "grpc")]
        assert_eq!(grpc.unwrap().protocol, Protocol::Grpc);
        #[cfg(not(feature = "grpc"))]
        assert_eq!(grpc, Err(AddressError::Grpc(path.clone())));
        let vsock = Address::Vsock { cid: 33, port: 1024 };
        assert_eq!(address("ttrpc+vsock://33:1024\n"), Ok(vsock.clone()));
        assert_eq!(vsock.to_string(), "vsock://33:1024");
        let text = "hvsock:///run/kuasar-vmm/5a/task.vsock:1024";
        let hybrid = Address::Hybrid {
            socket: "/run/kuasar-vmm/5a/task.vsock".into(),
            port: 1024,
        };
        assert_eq!(address(text), Ok(hybrid.clone()));
        assert_eq!(hybrid.to_string(), text);
        let bootstrap = br#"{"version":3,"address":"unix:///run/containerd/s/00e2","protocol":"TTRPC"}"#;
        assert_eq!(Endpoint::from_bootstrap(bootstrap).unwrap().address, path);
    }

    #[test]
    fn a_rootless_containerds_sockets_are_in_its_own_directory() {
        let moved = |text: &str| {
            let endpoint = Endpoint::from_address_file(text).unwrap();
            endpoint
                .moved("/run/containerd".as_ref(), "/run/user/1000/containerd".as_ref())
                .address
                .to_string()
        };
        assert_eq!(
            moved("unix:///run/containerd/s/5a"),
            "/run/user/1000/containerd/s/5a"
        );
        assert_eq!(moved("unix:///run/containerd-x/s"), "/run/containerd-x/s");
        assert_eq!(moved("/run/containerd/s/5a"), "@/run/containerd/s/5a");
    }

    #[test]
    fn the_version_decides_the_service() {
        let v3 = br#"{"version":3,"address":"unix:///s","protocol":"ttrpc"}"#;
        assert_eq!(Endpoint::from_bootstrap(v3).unwrap().version, TaskVersion::V3);
        let none = br#"{"address":"unix:///s"}"#;
        assert_eq!(Endpoint::from_bootstrap(none).unwrap().version, TaskVersion::V2);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Endpoint::from_bootstrap(&bytes);
            let _ = Endpoint::from_address_file(&String::from_utf8_lossy(&bytes));
        }
    }
}
