//! TLS, passwords, headers and a rate limit, from the file that `--web.config.file` names.
//!
//! The file and those that it names are looked at for every connection and request, and read again when they have
//! changed. A file that is then broken is not passed over: until it is mended nobody gets an answer. Certificates
//! that cannot be read are, for as long as the file itself says the same as before: they may be in the middle of
//! being renewed, and those from before go on to serve.

mod file;
mod names;
mod rate;
mod tls;
mod users;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use self::file::{Pem, Settings};
use self::rate::Bucket;
use self::users::Guard;
use crate::protection::Refusal;

/// The file is a page long; a key and a few certificates may be in it.
const MOST: u64 = 4 << 20;

/// What the file says, at any time.
pub struct WebConfig {
    path: PathBuf,
    notice: fn(&str),
    has_tls: bool,
    loaded: Mutex<Loaded>,
    bucket: Bucket,
    guard: Guard,
}

struct Loaded {
    /// The files that were read, or could not be, each as it was before that.
    files: Vec<(PathBuf, Option<Stamp>)>,
    rules: Result<Arc<Rules>, String>,
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

impl WebConfig {
    /// Reads the file for the first time: what is wrong with it now is an error.
    pub fn load(path: &Path, notice: fn(&str)) -> Result<Self, String> {
        let named = |error| format!("--web.config.file {}: {error}", path.display());
        let mut files = Vec::new();
        let settings = settings(path, &mut files).map_err(named)?;
        let tls = tls_config(&settings).map_err(named)?;
        Ok(Self {
            path: path.to_path_buf(),
            notice,
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
            guard: Guard::new().map_err(named)?,
        })
    }

    /// Whether connections are TLS. That is so from the start to the end.
    pub fn has_tls(&self) -> bool {
        self.has_tls
    }

    /// What a TLS connection is accepted with; `None` where the file cannot be used.
    pub fn acceptor(&self) -> Option<TlsAcceptor> {
        self.rules()?.tls.clone().map(TlsAcceptor::from)
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
        if settings.users.is_empty() {
            return Ok(());
        }
        self.guard
            .admit(&settings.users, headers)
            .await
            .map_err(|refusal| match refusal {
                users::Refusal::Unauthorized => Refusal::Unauthorized,
                users::Refusal::Busy => Refusal::Busy,
            })
    }

    /// What the files say now; `None` where they cannot be used.
    fn rules(&self) -> Option<Arc<Rules>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.files.iter().any(|(path, before)| stamp(path) != *before) {
            let mut files = Vec::new();
            loaded.rules = self.reload(loaded.rules.as_deref().ok(), &mut files);
            loaded.files = files;
            let path = self.path.display();
            (self.notice)(&match &loaded.rules {
                Err(error) => format!("{path}: {error}: nobody is answered until it is mended"),
                Ok(rules) => match &rules.kept {
                    Some(error) => format!("{path}: {error}: the certificates from before go on"),
                    None => format!("{path}: read again"),
                },
            });
        }
        loaded.rules.as_ref().ok().cloned()
    }

    fn reload(
        &self,
        before: Option<&Rules>,
        files: &mut Vec<(PathBuf, Option<Stamp>)>,
    ) -> Result<Arc<Rules>, String> {
        let settings = settings(&self.path, files)?;
        if settings.tls.is_some() != self.has_tls {
            return Err("TLS can be turned on and off only by a restart".to_string());
        }
        let (tls, kept) = match (tls_config(&settings), before) {
            (Ok(tls), _) => (tls, None),
            (Err(error), Some(before)) if before.settings.tls == settings.tls => {
                (before.tls.clone(), Some(error))
            }
            (Err(error), _) => return Err(error),
        };
        Ok(Arc::new(Rules { settings, tls, kept }))
    }
}

/// Reads the file, and notes in `files` it and those that it names.
fn settings(path: &Path, files: &mut Vec<(PathBuf, Option<Stamp>)>) -> Result<Settings, String> {
    // Looked at before they are read: what changes in between is read again.
    files.push((path.to_path_buf(), stamp(path)));
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() || metadata.len() > MOST {
        return Err(format!("no file of at most {MOST} bytes"));
    }
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let directory = path.parent().unwrap_or(Path::new(""));
    let settings = Settings::parse(&text, directory)?;
    let tls = settings.tls.as_ref();
    let pems = tls.map(|tls| [Some(&tls.certificate), Some(&tls.key), tls.client_ca.as_ref()]);
    for pem in pems.into_iter().flatten().flatten() {
        if let Pem::File(path) = pem {
            files.push((path.clone(), stamp(path)));
        }
    }
    for (user, hash) in &settings.users {
        if !users::is_hash(hash) {
            return Err(format!(
                "basic_auth_users: {user}: the password is not hashed with bcrypt"
            ));
        }
    }
    Ok(settings)
}

fn tls_config(settings: &Settings) -> Result<Option<Arc<ServerConfig>>, String> {
    settings
        .tls
        .as_ref()
        .map(|tls| tls::config(tls).map(Arc::new))
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
