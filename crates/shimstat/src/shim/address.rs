//! Where a shim listens, as it is written in a task's bundle.

use std::fmt;
use std::path::PathBuf;

/// A shim's socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// A socket file.
    Path(PathBuf),
    /// A name in Linux's abstract socket namespace, without its leading NUL.
    Abstract(Vec<u8>),
}

/// The generation of the task service that a shim says it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskVersion {
    /// `containerd.task.v2.Task`: Kata's shims, and runc's with containerd 1.x.
    V2,
    /// `containerd.task.v3.Task`: runc's shim with containerd 2.x.
    V3,
}

/// A shim's socket and how to speak to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Address,
    pub version: TaskVersion,
}

/// Why a text names no socket that we can call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("the address is empty")]
    Empty,
    #[error("the address {0:?} is of a kind that is not supported (unix sockets are)")]
    Scheme(String),
    #[error("the shim speaks {0:?}, and only ttrpc is supported")]
    Protocol(String),
    #[error("the shim speaks version {0} of the task service, and only 2 and 3 are supported")]
    Version(i64),
    #[error("not the JSON that containerd writes: {0}")]
    Json(String),
}

impl Address {
    /// Reads an address as containerd writes it: `unix://` and a path; without a scheme, an abstract name.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let text = text.trim_matches(['\n', '\r', ' ', '\t']);
        match text.split_once("://") {
            Some(("unix", "")) => Err(AddressError::Empty),
            // Kata up to 2.1 writes abstract names as `unix://@name`, Go's spelling of the leading NUL.
            Some(("unix", path)) => match path.strip_prefix(['@', '\0']) {
                Some(name) => Self::abstract_name(name),
                None => Ok(Self::Path(path.into())),
            },
            Some(_) => Err(AddressError::Scheme(text.chars().take(200).collect())),
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
        }
    }
}

impl Endpoint {
    /// The contents of a bundle's `address` file (containerd 1.x), for which containerd assumes version 2.
    pub fn from_address_file(text: &str) -> Result<Self, AddressError> {
        Ok(Self {
            address: Address::parse(text)?,
            version: TaskVersion::V2,
        })
    }

    /// The contents of a bundle's `bootstrap.json` (containerd 2.x):
    /// `{"version":2|3,"address":"unix://…","protocol":"ttrpc"|"grpc"}`.
    pub fn from_bootstrap(json: &[u8]) -> Result<Self, AddressError> {
        let value: serde_json::Value =
            serde_json::from_slice(json).map_err(|e| AddressError::Json(e.to_string()))?;
        let address = value
            .get("address")
            .and_then(|a| a.as_str())
            .ok_or_else(|| AddressError::Json("it has no text \"address\"".to_string()))?;
        match value.get("protocol").and_then(|p| p.as_str()) {
            None | Some("" | "ttrpc") => {}
            Some(other) => return Err(AddressError::Protocol(other.chars().take(40).collect())),
        }
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
        Ok(Self {
            address: Address::parse(address)?,
            version,
        })
    }
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
            Address::parse("vsock://2:1024"),
            Err(AddressError::Scheme("vsock://2:1024".into()))
        );
        let grpc = br#"{"version":3,"address":"unix:///s","protocol":"grpc"}"#;
        assert_eq!(
            Endpoint::from_bootstrap(grpc),
            Err(AddressError::Protocol("grpc".into()))
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
