//! TLS, passwords, headers and a rate limit, from the file that `--web.config.file` names.
//!
//! The file and those that it names are looked at for every connection and request, and read again when they have
//! changed. A file that is then broken is not passed over: no request is answered until it is corrected. Certificates
//! that cannot be read are, for as long as the file itself says the same as before: they may be in the middle of
//! being renewed, and the previous ones stay in use.

mod client_auth;
mod file;
mod passwords;
mod rate;
mod read;
mod tls;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio_rustls::rustls::ServerConfig;

use self::file::{Pem, Rate, Settings};
use self::passwords::Passwords;
use self::rate::Bucket;
use crate::error::{Event, Problem, WebConfigError};
use crate::listen::Stream;
use crate::protection::{Events, Handshake, Refusal, WebConfigSource};

/// How many refusals of TLS connections are told one by one: ten at once, then one in ten seconds. A scraper whose
/// certificate has expired says so every minute; what scans ports is counted.
const TOLD: Rate = Rate {
    interval: Duration::from_secs(10),
    burst: 10,
};

/// What the file says, at any time.
pub struct WebConfig {
    source: WebConfigSource,
    events: Events,
    has_tls: bool,
    loaded: Mutex<Loaded>,
    bucket: Bucket,
    passwords: Passwords,
    told: Bucket,
    /// TLS refusals that were not told.
    untold: Mutex<u64>,
}

struct Loaded {
    /// The files that were read, or could not be, each as it was before that.
    files: Vec<(PathBuf, Option<Stamp>)>,
    rules: Result<Arc<Rules>, Problem>,
}

/// What is done with connections and requests.
struct Rules {
    settings: Settings,
    tls: Option<Arc<ServerConfig>>,
    /// Why `tls` is older than the files of certificates.
    kept: Option<String>,
}

/// Tells a file from what it was before.
type Stamp = (u64, u64, u64, i64, i64);

/// Reads the text of a file, for a fuzz target.
#[cfg(feature = "fuzzing")]
pub fn fuzz(text: &str) {
    let _ = file::Settings::parse(text, std::path::Path::new("/nowhere"));
}

impl WebConfig {
    /// Reads the file for the first time: what is wrong with it now is an error.
    pub fn load(source: WebConfigSource, events: Events) -> Result<Self, WebConfigError> {
        let path = match &source {
            WebConfigSource::File(path) => Some(path.clone()),
            WebConfigSource::Tls(_) => None,
        };
        let named = |problem| WebConfigError {
            path: path.clone(),
            problem,
        };
        let mut files = Vec::new();
        let settings = settings(&source, &mut files).map_err(named)?;
        let tls = tls_config(&settings).map_err(named)?;
        Ok(Self {
            passwords: Passwords::new().map_err(named)?,
            source,
            events,
            has_tls: tls.is_some(),
            loaded: Mutex::new(Loaded {
                files,
                rules: Ok(Arc::new(Rules {
                    settings,
                    tls,
                    kept: None,
                })),
            }),
            bucket: Bucket::default(),
            told: Bucket::default(),
            untold: Mutex::default(),
        })
    }

    /// Tells what the file asks for and does not get.
    pub fn announce(&self) {
        if let Some(rules) = self.rules() {
            self.tell_not_offered(&rules);
        }
    }

    fn tell_not_offered(&self, rules: &Rules) {
        for (key, value) in &rules.settings.not_offered {
            let value = value.clone();
            (self.events)(Event::NotOffered { key, value });
        }
    }

    /// Whether connections are TLS. That is so from the start to the end.
    pub fn has_tls(&self) -> bool {
        self.has_tls
    }

    /// Whether clients are asked for passwords, as of now.
    pub fn has_passwords(&self) -> bool {
        self.rules().is_some_and(|rules| !rules.settings.users.is_empty())
    }

    /// Accepts a client's connection, by TLS if that is configured.
    pub async fn handshake(&self, stream: Stream) -> Handshake {
        if !self.has_tls {
            return Handshake::Done { stream, http2: false };
        }
        match self.rules().and_then(|rules| rules.tls.clone()) {
            Some(config) => tls::handshake(config, stream).await,
            // It has been said why.
            None => Handshake::Gone,
        }
    }

    /// Tells that a TLS connection was refused, though not more often than anybody would read.
    pub fn refused(&self, peer: String, reason: String) {
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.told.take(TOLD, Instant::now()) {
            *untold += 1;
            return;
        }
        let more = std::mem::take(&mut *untold);
        drop(untold);
        (self.events)(Event::TlsRefused { peer, reason, more });
    }

    /// The headers that every answer gets.
    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        self.rules()
            .map_or_else(Vec::new, |rules| rules.settings.headers.clone())
    }

    /// Whether a request is to be answered.
    pub async fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let rules = self.rules().ok_or(Refusal::Broken)?;
        let settings = &rules.settings;
        if settings
            .rate
            .is_some_and(|rate| !self.bucket.take(rate, Instant::now()))
        {
            return Err(Refusal::TooManyRequests);
        }
        match settings.users.is_empty() {
            true => Ok(()),
            false => self.passwords.admit(&settings.users, headers).await,
        }
    }

    /// What the files say now; `None` where they cannot be used.
    fn rules(&self) -> Option<Arc<Rules>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.files.iter().any(|(path, before)| stamp(path) != *before) {
            let mut files = Vec::new();
            loaded.rules = self.reload(loaded.rules.as_deref().ok(), &mut files);
            loaded.files = files;
            let path = match &self.source {
                WebConfigSource::File(path) => path.clone(),
                WebConfigSource::Tls(tls) => tls.cert_file.clone(),
            };
            (self.events)(match &loaded.rules {
                Err(problem) => Event::ConfigBroken {
                    path,
                    reason: problem.to_string(),
                },
                Ok(rules) => match &rules.kept {
                    Some(reason) => Event::CertificatesKept {
                        path,
                        reason: reason.clone(),
                    },
                    None => Event::ConfigReloaded { path },
                },
            });
            if let Ok(rules) = &loaded.rules {
                self.tell_not_offered(rules);
            }
        }
        loaded.rules.as_ref().ok().cloned()
    }

    fn reload(
        &self,
        before: Option<&Rules>,
        files: &mut Vec<(PathBuf, Option<Stamp>)>,
    ) -> Result<Arc<Rules>, Problem> {
        let settings = settings(&self.source, files)?;
        if settings.tls.is_some() != self.has_tls {
            return Err(Problem::TlsTurned);
        }
        let (tls, kept) = match (tls_config(&settings), before) {
            (Ok(tls), _) => (tls, None),
            (Err(problem), Some(before)) if before.settings.tls == settings.tls => {
                (before.tls.clone(), Some(problem.to_string()))
            }
            (Err(problem), _) => return Err(problem),
        };
        Ok(Arc::new(Rules { settings, tls, kept }))
    }
}

/// Reads the settings, and notes in `files` their file and those that it names.
fn settings(
    source: &WebConfigSource,
    files: &mut Vec<(PathBuf, Option<Stamp>)>,
) -> Result<Settings, Problem> {
    let settings = match source {
        WebConfigSource::Tls(tls) => Settings::of_files(tls)?,
        WebConfigSource::File(path) => {
            // Looked at before they are read: what changes in between is read again.
            files.push((path.clone(), stamp(path)));
            let text = read::limited(path).map_err(Problem::Read)?;
            let text = String::from_utf8(text).map_err(|error| Problem::Format(error.to_string()))?;
            Settings::parse(&text, path.parent().unwrap_or(Path::new("")))?
        }
    };
    let tls = settings.tls.as_ref();
    let pems = tls.map(|tls| [Some(&tls.certificate), Some(&tls.key), tls.client_ca.as_ref()]);
    for pem in pems.into_iter().flatten().flatten() {
        if let Pem::File(path) = pem {
            files.push((path.clone(), stamp(path)));
        }
    }
    match settings.users.iter().find(|(_, hash)| !passwords::is_hash(hash)) {
        Some((user, _)) => Err(Problem::NotHashed(user.clone())),
        None => Ok(settings),
    }
}

fn tls_config(settings: &Settings) -> Result<Option<Arc<ServerConfig>>, Problem> {
    let tls = settings.tls.as_ref();
    tls.map(|tls| tls::config(tls, settings.http2).map(Arc::new))
        .transpose()
}

fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    Some((
        file.dev(),
        file.ino(),
        file.size(),
        file.mtime(),
        file.mtime_nsec(),
    ))
}

#[cfg(test)]
mod tests;
