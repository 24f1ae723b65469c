//! The format of the file: that of Prometheus's own exporters
//! (<https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md>).
//!
//! What the format has and this program cannot do is an error, and so is a key that the format does not have: a
//! protection that somebody wrote down must not be missing in silence.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use go_duration as duration;
use hyper::header::{HeaderName, HeaderValue};
use serde::Deserialize;

/// What the file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub tls: Option<Tls>,
    /// Added to every answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Hashes of passwords by user; nobody is asked for a password where there are none.
    pub users: BTreeMap<String, String>,
    pub rate: Option<Rate>,
}

/// `tls_server_config`, where it is used.
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    pub certificate: Pem,
    pub key: Pem,
    pub clients: Clients,
    pub client_ca: Option<Pem>,
    /// Subject alternative names of which a client's certificate must have one.
    pub client_names: Option<Vec<String>>,
    pub oldest: Version,
    pub newest: Version,
    /// Names as in Go's crypto/tls; empty: all that there are.
    pub suites: Vec<String>,
    pub curves: Vec<String>,
    pub own_order: bool,
}

/// Where a PEM text is.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    File(PathBuf),
    Text(String),
}

/// Never the text: it may be a key.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Text(_) => f.write_str("(text)"),
        }
    }
}

/// Which clients' certificates are asked for, and taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    NotAsked,
    Asked,
    Any,
    VerifiedIfGiven,
    Verified,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Tls12,
    Tls13,
}

/// How many requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// One in this time,
    pub interval: Duration,
    /// and so many at once.
    pub burst: u32,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Document {
    tls_server_config: Option<TlsSection>,
    http_server_config: Option<HttpSection>,
    basic_auth_users: Option<Users>,
    rate_limit: Option<RateSection>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct TlsSection {
    cert: Option<String>,
    key: Option<String>,
    client_ca: Option<String>,
    cert_file: Option<String>,
    key_file: Option<String>,
    client_auth_type: Option<String>,
    client_ca_file: Option<String>,
    client_allowed_sans: Option<Vec<String>>,
    cipher_suites: Option<Vec<String>>,
    curve_preferences: Option<Vec<String>>,
    min_version: Option<String>,
    max_version: Option<String>,
    prefer_server_cipher_suites: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct HttpSection {
    /// Whether HTTP/2 is offered. It is not, and need not be: clients that would take it take HTTP/1.1.
    #[serde(rename = "http2")]
    _http2: Option<bool>,
    headers: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RateSection {
    interval: Option<Interval>,
    burst: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Interval {
    Nanoseconds(u64),
    Text(String),
}

/// A map of texts in which no key may be twice.
struct Users(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Users {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Users;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("users and their passwords' hashes")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Users, A::Error> {
                let mut users = BTreeMap::new();
                while let Some((user, hash)) = map.next_entry::<String, String>()? {
                    if users.insert(user.clone(), hash).is_some() {
                        return Err(serde::de::Error::custom(format!(
                            "the user {user:?} is there twice"
                        )));
                    }
                }
                Ok(Users(users))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

impl Settings {
    /// Reads the text of a file. Relative paths in it are below `directory`.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, String> {
        let document: Option<Document> = yaml_serde::from_str(text).map_err(|error| error.to_string())?;
        let document = document.unwrap_or_default();
        let headers = document.http_server_config.and_then(|http| http.headers);
        let headers = headers
            .unwrap_or_default()
            .into_iter()
            .filter(|(_, value)| !value.is_empty());
        Ok(Self {
            tls: match document.tls_server_config {
                Some(section) => section.settings(directory)?,
                None => None,
            },
            headers: headers
                .map(|(name, value)| header(&name, &value))
                .collect::<Result<_, _>>()?,
            users: document.basic_auth_users.map(|users| users.0).unwrap_or_default(),
            rate: match document.rate_limit {
                Some(section) => section.settings()?,
                None => None,
            },
        })
    }
}

impl TlsSection {
    fn settings(self, directory: &Path) -> Result<Option<Tls>, String> {
        let pem = |file: Option<String>, text: Option<String>| {
            let file = file.filter(|file| !file.is_empty());
            let text = text.filter(|text| !text.is_empty());
            // The file comes first where both are given, as upstream.
            file.map(|file| Pem::File(directory.join(file)))
                .or_else(|| text.map(Pem::Text))
        };
        let certificate = pem(self.cert_file, self.cert);
        let key = pem(self.key_file, self.key);
        let client_ca = pem(self.client_ca_file, self.client_ca);
        let clients = self.client_auth_type.filter(|clients| !clients.is_empty());
        if certificate.is_none() && key.is_none() && client_ca.is_none() && clients.is_none() {
            return Ok(None);
        }
        let certificate = certificate.ok_or("tls_server_config: missing one of cert or cert_file")?;
        let key = key.ok_or("tls_server_config: missing one of key or key_file")?;
        let clients = clients_of(clients.as_deref().unwrap_or("NoClientCert"))?;
        match (&client_ca, clients) {
            (Some(_), Clients::NotAsked) => {
                return Err("client CA's have been configured without a client_auth_type".to_string());
            }
            (None, Clients::VerifiedIfGiven | Clients::Verified) => {
                return Err("client_auth_type: there is no client_ca_file to verify against".to_string());
            }
            _ => {}
        }
        let oldest = version_of("min_version", self.min_version, Version::Tls12)?;
        let newest = version_of("max_version", self.max_version, Version::Tls13)?;
        if oldest > newest {
            return Err("no TLS version satisfies min_version and max_version".to_string());
        }
        Ok(Some(Tls {
            certificate,
            key,
            clients,
            client_ca,
            client_names: self.client_allowed_sans,
            oldest,
            newest,
            suites: self.cipher_suites.unwrap_or_default(),
            curves: self.curve_preferences.unwrap_or_default(),
            own_order: self.prefer_server_cipher_suites.unwrap_or(true),
        }))
    }
}

impl RateSection {
    fn settings(self) -> Result<Option<Rate>, String> {
        let nanoseconds = match self.interval {
            None => 0,
            Some(Interval::Nanoseconds(nanoseconds)) => nanoseconds,
            Some(Interval::Text(text)) => duration::parse_nanos(&text)
                .map_err(|error| error.to_string())
                .and_then(|nanos| u64::try_from(nanos).map_err(|_| format!("{text:?} is negative")))
                .map_err(|error| format!("rate_limit: interval: {error}"))?,
        };
        let rate = Rate {
            interval: Duration::from_nanos(nanoseconds),
            burst: self.burst.unwrap_or(0),
        };
        Ok(Some(rate).filter(|rate| !rate.interval.is_zero()))
    }
}

fn clients_of(text: &str) -> Result<Clients, String> {
    Ok(match text {
        "NoClientCert" => Clients::NotAsked,
        "RequestClientCert" => Clients::Asked,
        "RequireAnyClientCert" | "RequireClientCert" => Clients::Any,
        "VerifyClientCertIfGiven" => Clients::VerifiedIfGiven,
        "RequireAndVerifyClientCert" => Clients::Verified,
        _ => return Err(format!("client_auth_type: invalid ClientAuth: {text}")),
    })
}

fn version_of(key: &str, text: Option<String>, default: Version) -> Result<Version, String> {
    match text.as_deref() {
        None => Ok(default),
        Some("TLS13") => Ok(Version::Tls13),
        Some("TLS12") => Ok(Version::Tls12),
        Some(old @ ("TLS11" | "TLS10")) => Err(format!("{key}: {old} is not supported: TLS12 and TLS13 are")),
        Some(other) => Err(format!("{key}: unknown TLS version: {other}")),
    }
}

/// A header that may be set, with the values that it may have.
fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let allowed: &[&str] = match name {
        "Strict-Transport-Security" | "X-XSS-Protection" | "Content-Security-Policy" => &[],
        "X-Content-Type-Options" => &["nosniff"],
        "X-Frame-Options" => &["deny", "sameorigin"],
        _ => return Err(format!("HTTP header {name:?} can not be configured")),
    };
    if !allowed.is_empty() && !allowed.contains(&value) {
        return Err(format!(
            "invalid value for {name}: {value:?} is none of {allowed:?}"
        ));
    }
    match (
        HeaderName::from_bytes(name.as_bytes()),
        HeaderValue::from_str(value),
    ) {
        (Ok(name), Ok(value)) => Ok((name, value)),
        _ => Err(format!("invalid value for {name}: {value:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Settings, String> {
        Settings::parse(text, Path::new("/etc/monitor"))
    }

    #[test]
    fn reads_upstreams_example() {
        // The sample file of the exporter toolkit, with a client CA and a rate limit added.
        let settings = parse(
            "# TLS and basic authentication configuration example.\n\
             tls_server_config:\n  cert_file: server.crt\n  key_file: /keys/server.key\n  \
             client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n  min_version: TLS13\n\n\
             http_server_config:\n  http2: true\n  headers:\n    X-Frame-Options: deny\n    \
             Strict-Transport-Security: \"\"\n\n\
             rate_limit:\n  interval: 1.5s\n  burst: 4\n\n\
             # Usernames and passwords required to connect.\n\
             basic_auth_users:\n  alice: $2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze\n  \
             bob: $2y$10$hLqFl9jSjoAAy95Z/zw8Ye8wkdMBM8c5Bn1ptYqP/AXyV0.oy0S8m\n",
        )
        .unwrap();
        let tls = settings.tls.unwrap();
        assert_eq!(tls.certificate, Pem::File("/etc/monitor/server.crt".into()));
        assert_eq!(tls.key, Pem::File("/keys/server.key".into()));
        assert_eq!(tls.client_ca, Some(Pem::File("/etc/monitor/ca.pem".into())));
        assert_eq!(
            (tls.clients, tls.oldest, tls.newest),
            (Clients::Verified, Version::Tls13, Version::Tls13)
        );
        assert!(tls.own_order);
        assert_eq!(settings.headers.len(), 1, "one that is blank is not set");
        assert_eq!(settings.headers[0].1, "deny");
        assert_eq!(settings.users.len(), 2);
        assert!(settings.users["alice"].starts_with("$2y$10$mDwo"));
        let rate = Rate {
            interval: Duration::from_millis(1500),
            burst: 4,
        };
        assert_eq!(settings.rate, Some(rate));
    }

    #[test]
    fn an_empty_file_protects_nothing() {
        let nothing = Settings {
            tls: None,
            headers: Vec::new(),
            users: BTreeMap::new(),
            rate: None,
        };
        for text in [
            "",
            "# a comment\n",
            "{}",
            "tls_server_config:\nbasic_auth_users:\n",
            "tls_server_config: {}\nbasic_auth_users: {}",
            "tls_server_config:\n  cert_file: ''\n  key_file: ''\n",
            "tls_server_config:\n  min_version: TLS13\n",
            "rate_limit:\n  interval: 0\n  burst: 3\n",
        ] {
            assert_eq!(parse(text).as_ref(), Ok(&nothing), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_of_the_format_or_cannot_be_done_is_an_error() {
        let tls = "tls_server_config:\n  cert_file: c\n  key_file: k\n";
        for (text, error) in [
            ("hallo".to_string(), "expected"),
            ("hallo: 1".to_string(), "unknown field `hallo`"),
            ("tls_server_config: [".to_string(), ""),
            (
                "tls_server_config:\n  cert_files: x\n".to_string(),
                "unknown field `cert_files`",
            ),
            (
                "http_server_config:\n  header: {}\n".to_string(),
                "unknown field `header`",
            ),
            (
                "tls_server_config:\n  cert_file: c\n".to_string(),
                "missing one of key or key_file",
            ),
            (
                "tls_server_config:\n  key_file: k\n".to_string(),
                "missing one of cert or cert_file",
            ),
            (
                "tls_server_config:\n  client_auth_type: NoClientCert\n".to_string(),
                "missing one of cert or cert_file",
            ),
            (
                format!("{tls}  client_ca_file: a\n"),
                "without a client_auth_type",
            ),
            (
                format!("{tls}  client_auth_type: Some\n"),
                "invalid ClientAuth: Some",
            ),
            (
                format!("{tls}  client_auth_type: RequireAndVerifyClientCert\n"),
                "no client_ca_file",
            ),
            (
                format!("{tls}  min_version: TLS11\n"),
                "min_version: TLS11 is not supported",
            ),
            (
                format!("{tls}  max_version: TLS14\n"),
                "unknown TLS version: TLS14",
            ),
            (
                format!("{tls}  min_version: TLS13\n  max_version: TLS12\n"),
                "no TLS version satisfies",
            ),
            (format!("{tls}  cert_file: d\n"), "duplicate"),
            ("basic_auth_users:\n  a: x\n  a: y\n".to_string(), "twice"),
            ("basic_auth_users: [a]\n".to_string(), "users and their passwords"),
            (
                "http_server_config:\n  headers:\n    Server: x\n".to_string(),
                "can not be configured",
            ),
            (
                "http_server_config:\n  headers:\n    X-Frame-Options: maybe\n".to_string(),
                "invalid value for X-Frame-Options",
            ),
            (
                "http_server_config:\n  headers:\n    X-XSS-Protection: \"a\\nb\"\n".to_string(),
                "invalid value for X-XSS-Protection",
            ),
            (
                "rate_limit:\n  interval: soon\n".to_string(),
                "rate_limit: interval",
            ),
            ("rate_limit:\n  interval: -1s\n".to_string(), "negative"),
        ] {
            let failure = parse(&text).expect_err(&text);
            assert!(failure.contains(error), "{text:?}: {failure}");
        }
    }

    #[test]
    fn texts_of_certificates_may_be_in_the_file() {
        let settings = parse("tls_server_config:\n  cert: |\n    -----BEGIN\n    x\n  key: k\n").unwrap();
        let tls = settings.tls.unwrap();
        assert_eq!(tls.certificate, Pem::Text("-----BEGIN\nx\n".into()));
        assert!(!format!("{tls:?}").contains("BEGIN"));
        assert_eq!(tls.clients, Clients::NotAsked);
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = parse(&text);
            let _ = parse(&format!("tls_server_config:\n  cert_file: {text}\n"));
        }
    }
}
