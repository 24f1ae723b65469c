//! The address to listen on, as a command line gives it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Where to listen: `HOST:PORT`, `:PORT` for every address of the machine, or `unix:///PATH`.
///
/// A host is an IP address, `localhost`, or a name in `/etc/hosts`. DNS is not asked: an address to listen on is one
/// of the machine itself, and an exporter must start on a node whose resolver does not answer.
///
/// ```
/// # use exporter_web::ListenAddress;
/// let address: ListenAddress = "127.0.0.1:9100".parse()?;
/// assert_eq!(address.to_string(), "127.0.0.1:9100");
/// assert!("9100".parse::<ListenAddress>().is_err());
/// # Ok::<(), exporter_web::AddressError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress(pub(crate) Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// Why a text is not a [`ListenAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Not of any form that is known.
    #[error("neither HOST:PORT nor :PORT nor unix:///PATH")]
    Malformed,
    /// A unix socket's path does not begin with a slash.
    #[error("a unix socket needs an absolute path: unix:///run/exporter.sock")]
    RelativePath,
    /// Some of Prometheus's exporters listen on vsock; this one does not.
    #[error("vsock is not supported: listen on HOST:PORT or unix:///PATH")]
    Vsock,
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix://") {
            return match path.starts_with('/') {
                true => Ok(Self(Kind::Unix(path.into()))),
                false => Err(AddressError::RelativePath),
            };
        }
        if text.starts_with("vsock://") {
            return Err(AddressError::Vsock);
        }
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::Malformed)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        // More colons are an IPv6 address, whose port could not be told from it without brackets.
        if bracketed.is_some_and(|host| host.parse::<Ipv6Addr>().is_err())
            || bracketed.is_none() && host.contains(':')
        {
            return Err(AddressError::Malformed);
        }
        let port = port.parse().map_err(|_| AddressError::Malformed)?;
        Ok(Self(Kind::Tcp {
            host: bracketed.unwrap_or(host).to_string(),
            port,
        }))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Kind::Tcp { host, port } => write!(f, "{host}:{port}"),
            Kind::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// The addresses of a host, in the order in which they are to be tried.
pub(crate) fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let addresses = match host {
        // The IPv6 wildcard takes IPv4 as well; a machine without IPv6 has IPv4's own.
        "" => vec![Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()],
        "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        _ => match host.parse() {
            Ok(address) => vec![address],
            Err(_) => in_hosts(&read_hosts()?, host),
        },
    };
    if addresses.is_empty() {
        let reason = format!("{host} is neither an IP address nor a name in {HOSTS}; DNS is not asked");
        return Err(io::Error::new(io::ErrorKind::NotFound, reason));
    }
    let with_port = |address| SocketAddr::new(address, port);
    Ok(addresses.into_iter().map(with_port).collect())
}

const HOSTS: &str = "/etc/hosts";

/// Lists for blocking advertisements have some megabytes; the machine's own names come first.
const MAX_HOSTS: u64 = 1 << 20;

fn read_hosts() -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(HOSTS)?.take(MAX_HOSTS).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The addresses that a name has in the text of `/etc/hosts` (hosts(5)).
fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let entry = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words
            .any(|word| word.eq_ignore_ascii_case(name))
            .then_some(address)
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_programs_take_and_unix_sockets() {
        for text in [
            "127.0.0.1:8090",
            ":8090",
            "[::1]:0",
            "localhost:8090",
            "0.0.0.0:1",
            "unix:///run/x.sock",
        ] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "8090",
            "host",
            "host:",
            "host:http",
            "host:65536",
            "::1:80",
            "[::1]",
            "[host]:80",
            "unix:/x",
        ] {
            assert_eq!(
                text.parse::<ListenAddress>(),
                Err(AddressError::Malformed),
                "{text:?}"
            );
        }
        for text in ["unix://", "unix://x"] {
            assert_eq!(
                text.parse::<ListenAddress>(),
                Err(AddressError::RelativePath),
                "{text:?}"
            );
        }
        assert_eq!("vsock://:9100".parse::<ListenAddress>(), Err(AddressError::Vsock));
    }

    #[test]
    fn a_name_is_one_that_the_machine_knows() {
        let hosts =
            "127.0.0.1 localhost\n10.0.0.1\tnode-1 node-1.example # node-2\n::1 ip6 Node-1\n\nx node-3\n";
        let addresses = |name| {
            let found = in_hosts(hosts, name).into_iter();
            found.map(|address| address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(addresses("node-1"), ["10.0.0.1", "::1"]);
        assert_eq!(addresses("NODE-1.EXAMPLE"), ["10.0.0.1"]);
        for nobody in ["node-2", "node-3", "node", "10.0.0.1", ""] {
            assert!(addresses(nobody).is_empty(), "{nobody}");
        }
        let error = resolve("no.such.host.example", 1).unwrap_err().to_string();
        assert!(
            error.contains("/etc/hosts") && error.contains("DNS is not asked"),
            "{error}"
        );
    }

    #[test]
    fn no_host_is_every_address() {
        let all = resolve("", 80).unwrap();
        assert!(
            all.iter()
                .all(|address| address.ip().is_unspecified() && address.port() == 80)
        );
        assert_eq!(all.len(), 2);
    }
}
