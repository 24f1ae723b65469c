//! What stands in for the web config file where the feature is left out: there is none.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use crate::error::{Problem, WebConfigError};
use crate::listen::Stream;
use crate::protection::{Events, Handshake, Refusal, WebConfigSource};

pub enum WebConfig {}

impl WebConfig {
    pub fn load(source: WebConfigSource, _: Events) -> Result<Self, WebConfigError> {
        let path = match source {
            WebConfigSource::File(path) => Some(path),
            WebConfigSource::Tls(_) => None,
        };
        let problem = Problem::NotBuilt;
        Err(WebConfigError { path, problem })
    }

    pub fn announce(&self) {
        match *self {}
    }

    pub fn has_tls(&self) -> bool {
        match *self {}
    }

    pub fn has_passwords(&self) -> bool {
        match *self {}
    }

    pub async fn handshake(&self, _: Stream) -> Handshake {
        match *self {}
    }

    pub fn refused(&self, _: String, _: String) {
        match *self {}
    }

    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        match *self {}
    }

    pub async fn admit(&self, _: &HeaderMap) -> Result<(), Refusal> {
        match *self {}
    }
}
