//! The format of the file: that of Prometheus's own exporters
//! (<https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md>).
//!
//! A key that the format does not have is an error, as upstream: a protection that somebody wrote down must not be
//! missing in silence.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use serde::de::{self, Deserialize, Deserializer};

use crate::error::Problem;
use crate::protection::TlsFiles;

/// What the file says.
#[derive(Debug, Default, PartialEq)]
pub struct Settings {
    pub tls: Option<Tls>,
    /// Whether TLS connections are offered HTTP/2.
    pub http2: bool,
    /// Added to every answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Hashes of passwords by user. Empty: no password is asked for.
    pub users: BTreeMap<String, String>,
    pub rate: Option<Rate>,
    /// What is asked for and not offered, by key: the rest of what that key says is done.
    pub not_offered: Vec<(&'static str, String)>,
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
    /// Names as in Go's crypto/tls; empty: all that are offered.
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
            Self::Text(_) => f.write_str("(given in the file)"),
        }
    }
}

/// Which clients' certificates are asked for, and accepted.
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
    /// and this many at once.
    pub burst: u32,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Document {
    tls_server_config: Option<TlsSection>,
    http_server_config: Option<HttpSection>,
    basic_auth_users: Option<Map>,
    rate_limit: Option<RateSection>,
}

#[derive(serde::Deserialize, Default)]
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
    prefer_server_cipher_suites: Option<Bool>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct HttpSection {
    http2: Option<Bool>,
    headers: Option<Map>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RateSection {
    interval: Option<Interval>,
    burst: Option<i64>,
}

/// As Go reads a duration: a number alone is in nanoseconds.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Interval {
    Nanoseconds(u64),
    Text(String),
}

/// YAML 1.1, which Go's parser reads, has more words for yes and no than YAML 1.2.
#[derive(Clone, Copy)]
struct Bool(bool);

impl<'de> Deserialize<'de> for Bool {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.to_ascii_lowercase().as_str() {
            "y" | "yes" | "true" | "on" => Ok(Self(true)),
            "n" | "no" | "false" | "off" => Ok(Self(false)),
            _ => Err(de::Error::custom(format!("{text:?} is neither true nor false"))),
        }
    }
}

/// A map of texts in which no key may be twice: of two passwords for a user, which one holds?
#[derive(Default)]
struct Map(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Map {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Map;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of texts")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Map, A::Error> {
                let mut map = Map::default();
                while let Some((key, value)) = entries.next_entry::<String, String>()? {
                    if map.0.contains_key(&key) {
                        return Err(de::Error::custom(format!("{key:?} is there twice")));
                    }
                    map.0.insert(key, value);
                }
                Ok(map)
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

impl Settings {
    /// Reads the text of a file. Relative paths in it are below `directory`.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, Problem> {
        let document: Option<Document> =
            yaml_serde::from_str(text).map_err(|error| match yaml_serde::from_str(text) {
                // Not as the parser says it, with all of a text that may be a private key.
                Ok(yaml_serde::Value::String(_)) => Problem::NotSections,
                _ => Problem::Format(error.to_string()),
            })?;
        let document = document.unwrap_or_default();
        let http = document.http_server_config.unwrap_or_default();
        let headers = http.headers.unwrap_or_default().0.into_iter();
        let mut settings = Self {
            tls: None,
            http2: http.http2.is_none_or(|http2| http2.0),
            headers: headers
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| header(&name, &value))
                .collect::<Result<_, _>>()?,
            users: document.basic_auth_users.unwrap_or_default().0,
            rate: document.rate_limit.map(RateSection::rate).transpose()?.flatten(),
            not_offered: Vec::new(),
        };
        if let Some(section) = document.tls_server_config {
            settings.tls = section.tls(directory, &mut settings.not_offered)?;
        }
        Ok(settings)
    }

    /// What a certificate and its key alone say.
    pub fn of_files(files: &TlsFiles) -> Result<Self, Problem> {
        let text = |key, path: &Path| match path.to_str() {
            Some(text) => Ok(Some(text.to_string())),
            None => Err(Problem::key(key, format!("{}: not UTF-8", path.display()))),
        };
        let section = TlsSection {
            cert_file: text("cert_file", &files.cert_file)?,
            key_file: text("key_file", &files.key_file)?,
            min_version: files.tls13_only.then(|| "TLS13".to_string()),
            cipher_suites: Some(files.cipher_suites.clone()),
            ..TlsSection::default()
        };
        let mut settings = Self {
            http2: true,
            ..Self::default()
        };
        settings.tls = section.tls(Path::new(""), &mut settings.not_offered)?;
        Ok(settings)
    }
}

/// The suites of Go's `tls.CipherSuites` that rustls does not have. Those in CBC mode are open to timing attacks.
const CBC_SUITES: [&str; 4] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
];

/// The one curve of the format that ring does not have.
const OTHER_CURVES: [&str; 1] = ["CurveP521"];

impl TlsSection {
    fn tls(
        self,
        directory: &Path,
        not_offered: &mut Vec<(&'static str, String)>,
    ) -> Result<Option<Tls>, Problem> {
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
            return match self.client_allowed_sans {
                Some(_) => Err(Problem::Conflict(
                    "client_allowed_sans: there is no cert_file, so no TLS",
                )),
                None => Ok(None),
            };
        }
        let certificate = certificate.ok_or(Problem::Conflict("missing one of cert or cert_file"))?;
        let key = key.ok_or(Problem::Conflict("missing one of key or key_file"))?;
        let clients = clients_of(clients.as_deref().unwrap_or("NoClientCert"))?;
        check_clients(clients, client_ca.is_some(), self.client_allowed_sans.is_some())?;
        let oldest = match self.min_version {
            Some(version) if matches!(version.as_str(), "TLS10" | "TLS11") => {
                not_offered.push(("min_version", version));
                Version::Tls12
            }
            version => version_of("min_version", version, Version::Tls12)?,
        };
        let newest = version_of("max_version", self.max_version, Version::Tls13)?;
        if oldest > newest {
            return Err(Problem::Conflict(
                "no TLS version satisfies min_version and max_version",
            ));
        }
        let mut offered = |key, names: Option<Vec<String>>, unknown: &[&str]| {
            let names = names.unwrap_or_default();
            let (others, offered): (Vec<_>, Vec<_>) = names
                .into_iter()
                .partition(|name| unknown.contains(&name.as_str()));
            if offered.is_empty() && !others.is_empty() {
                return Err(Problem::key(
                    key,
                    format!("{} is not offered, and nothing else is named", others.join(", ")),
                ));
            }
            not_offered.extend(others.into_iter().map(|name| (key, name)));
            Ok(offered)
        };
        Ok(Some(Tls {
            certificate,
            key,
            clients,
            client_ca,
            client_names: self.client_allowed_sans,
            oldest,
            newest,
            suites: offered("cipher_suites", self.cipher_suites, &CBC_SUITES)?,
            curves: offered("curve_preferences", self.curve_preferences, &OTHER_CURVES)?,
            own_order: self.prefer_server_cipher_suites.is_none_or(|own| own.0),
        }))
    }
}

/// Whether what is said of clients' certificates makes sense together.
fn check_clients(clients: Clients, has_ca: bool, has_names: bool) -> Result<(), Problem> {
    let conflict = match clients {
        Clients::NotAsked if has_ca => "client CA's have been configured without a client_auth_type",
        Clients::NotAsked | Clients::Asked | Clients::Any if has_names => {
            "client_allowed_sans: certificates are not verified, so anybody can have any name: set client_auth_type to \
             RequireAndVerifyClientCert"
        }
        // Go would accept a certificate of any public authority.
        Clients::Verified if !has_ca => "client_auth_type: there is no client_ca_file to verify against",
        _ => return Ok(()),
    };
    Err(Problem::Conflict(conflict))
}

impl RateSection {
    fn rate(self) -> Result<Option<Rate>, Problem> {
        let nanoseconds = match self.interval {
            None => 0,
            Some(Interval::Nanoseconds(nanoseconds)) => nanoseconds,
            Some(Interval::Text(text)) => go_duration::parse_nanos(&text)
                .map_err(|error| Problem::key("rate_limit: interval", error))?
                .try_into()
                .map_err(|_| Problem::key("rate_limit: interval", format!("{text:?} is negative")))?,
        };
        let rate = Rate {
            interval: Duration::from_nanos(nanoseconds),
            burst: u32::try_from(self.burst.unwrap_or(0).max(0)).unwrap_or(u32::MAX),
        };
        Ok(Some(rate).filter(|rate| !rate.interval.is_zero()))
    }
}

fn clients_of(text: &str) -> Result<Clients, Problem> {
    Ok(match text {
        "NoClientCert" => Clients::NotAsked,
        "RequestClientCert" => Clients::Asked,
        "RequireAnyClientCert" | "RequireClientCert" => Clients::Any,
        "VerifyClientCertIfGiven" => Clients::VerifiedIfGiven,
        "RequireAndVerifyClientCert" => Clients::Verified,
        _ => {
            return Err(Problem::key(
                "client_auth_type",
                format!("invalid ClientAuth: {text}"),
            ));
        }
    })
}

fn version_of(key: &'static str, text: Option<String>, default: Version) -> Result<Version, Problem> {
    match text.as_deref() {
        None => Ok(default),
        Some("TLS13") => Ok(Version::Tls13),
        Some("TLS12") => Ok(Version::Tls12),
        Some(old @ ("TLS11" | "TLS10")) => Err(Problem::key(
            key,
            format!("{old} is not offered: TLS12 and TLS13 are"),
        )),
        Some(other) => Err(Problem::key(key, format!("unknown TLS version: {other}"))),
    }
}

/// A header that may be set, with the values that it may have.
fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Problem> {
    let allowed: &[&str] = match name {
        "Strict-Transport-Security" | "X-XSS-Protection" | "Content-Security-Policy" => &[],
        "X-Content-Type-Options" => &["nosniff"],
        "X-Frame-Options" => &["deny", "sameorigin"],
        _ => {
            return Err(Problem::key(
                "headers",
                format!("HTTP header {name:?} can not be configured"),
            ));
        }
    };
    let invalid = |expected: &str| {
        Problem::key(
            "headers",
            format!("invalid value for {name}: {value:?}{expected}"),
        )
    };
    if !allowed.is_empty() && !allowed.contains(&value) {
        return Err(invalid(&format!(", expected one of {allowed:?}")));
    }
    match (
        HeaderName::from_bytes(name.as_bytes()),
        HeaderValue::from_str(value),
    ) {
        (Ok(name), Ok(value)) => Ok((name, value)),
        _ => Err(invalid("")),
    }
}

#[cfg(test)]
mod tests;
