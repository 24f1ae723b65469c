//! What stands between clients and answers: nothing, or what the file of `--web.config.file` says.

use std::path::Path;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

#[cfg(feature = "web-config")]
use crate::web_config::WebConfig;

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "web-config"), allow(dead_code))]
pub enum Refusal {
    /// No password, or a wrong one.
    Unauthorized,
    /// The rate limit is reached.
    TooManyRequests,
    /// Too many passwords are waiting to be checked.
    Busy,
    /// The file cannot be used any more.
    Broken,
}

/// See the module.
pub struct Protection {
    #[cfg(feature = "web-config")]
    config: Option<WebConfig>,
}

#[cfg(feature = "web-config")]
impl Protection {
    /// Reads the file, where one is named.
    ///
    /// `notice` is called with a line for the operator when the file has changed.
    pub fn load(file: Option<&Path>, notice: fn(&str)) -> Result<Self, String> {
        let config = file.map(|file| WebConfig::load(file, notice)).transpose()?;
        Ok(Self { config })
    }

    /// Whether connections are TLS.
    pub fn has_tls(&self) -> bool {
        self.config.as_ref().is_some_and(WebConfig::has_tls)
    }

    /// What a TLS connection is accepted with, where that can be done now.
    pub fn acceptor(&self) -> Option<tokio_rustls::TlsAcceptor> {
        self.config.as_ref()?.acceptor()
    }

    /// The headers that every answer gets.
    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        self.config.as_ref().map_or_else(Vec::new, WebConfig::headers)
    }

    /// Whether a request with these headers is to be answered.
    pub async fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match &self.config {
            Some(config) => config.admit(headers).await,
            None => Ok(()),
        }
    }
}

#[cfg(not(feature = "web-config"))]
impl Protection {
    pub fn load(file: Option<&Path>, _notice: fn(&str)) -> Result<Self, String> {
        match file {
            Some(_) => {
                Err("--web.config.file: this program was built without the feature web-config".to_string())
            }
            None => Ok(Self {}),
        }
    }

    pub fn has_tls(&self) -> bool {
        false
    }

    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        Vec::new()
    }

    pub async fn admit(&self, _headers: &HeaderMap) -> Result<(), Refusal> {
        Ok(())
    }
}
