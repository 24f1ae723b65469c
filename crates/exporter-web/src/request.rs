//! What a client asks, and what it accepts for an answer.

use std::sync::Arc;

use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderName};
use hyper::http::request::Parts;

use crate::connections::Answering;

/// A `GET` or `HEAD` request that was admitted. Its body, if any, is not read.
#[derive(Debug)]
pub struct Request {
    parts: Parts,
    answering: Arc<Answering>,
}

impl Request {
    pub(crate) fn new(parts: Parts, answering: Arc<Answering>) -> Self {
        Self { parts, answering }
    }

    /// Whether only the head of the answer is wanted (`HEAD`).
    pub fn is_head(&self) -> bool {
        self.parts.method == hyper::Method::HEAD
    }

    /// The path, as sent: percent escapes are not decoded.
    pub fn path(&self) -> &str {
        self.parts.uri.path()
    }

    /// The value of the first query parameter of this name that is not empty, decoded as a form's is.
    pub fn query(&self, name: &str) -> Option<String> {
        query_value(self.parts.uri.query()?, name)
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// Whether the client says that it shows HTML, as browsers do and scrapers do not.
    pub fn accepts_html(&self) -> bool {
        accepts(self.headers(), ACCEPT, "text/html").unwrap_or(false)
    }

    /// Waits for one of the places for answers that hold much memory (see
    /// [`Builder::max_large_answers`](crate::Builder::max_large_answers)), and keeps it until the answer has been sent.
    /// An answer that its client has not taken anything of for a second is given up where another waits for its place.
    pub async fn claim_large_answer(&self) {
        self.answering.claim_large().await;
    }
}

/// Whether the client accepts gzip (RFC 9110, 12.5.3). How much it prefers other encodings is not looked at: they are
/// not offered.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    accepts(headers, ACCEPT_ENCODING, "gzip")
        .or_else(|| accepts(headers, ACCEPT_ENCODING, "*"))
        .unwrap_or(false)
}

/// Whether a header that lists choices (`a, b;q=0.5`) accepts one; `None` where it is not listed. A weight that
/// cannot be read accepts nothing.
fn accepts(headers: &HeaderMap, name: HeaderName, choice: &str) -> Option<bool> {
    let values = headers.get_all(name).into_iter();
    let entries = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    entries
        .filter_map(|entry| weight(entry, choice))
        .reduce(|one, other| one || other)
}

fn weight(entry: &str, choice: &str) -> Option<bool> {
    let mut parts = entry.split(';').map(str::trim);
    parts.next().filter(|name| name.eq_ignore_ascii_case(choice))?;
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    Some(weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|weight| weight > 0.0)))
}

fn query_value(query: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes())
        .find(|(key, value)| key == name && !value.is_empty())
        .map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn gzip_is_sent_to_clients_that_accept_it() {
        for (values, gzip) in [
            (&["gzip"][..], true),
            (&["GZip"], true),
            (&["deflate, gzip;q=1.0, *;q=0.5"], true),
            (&["deflate", "gzip"], true),
            (&["*"], true),
            (&["br;q=1.0 , gzip ; q=0.2"], true),
            (&["gzip;q=0.001"], true),
            (&["gzip, identity"], true),
            (&[], false),
            (&[""], false),
            (&["identity"], false),
            (&["gzip;q=0"], false),
            (&["gzip;q=0.000"], false),
            (&["gzip;q=0, *"], false),
            (&["*;q=0"], false),
            (&["deflate"], false),
            (&["gzipped"], false),
            (&["gzip;q=yes"], false),
            (&["gzip;q=-1"], false),
            (&["gzip;q=NaN"], false),
        ] {
            assert_eq!(
                accepts_gzip(&headers(ACCEPT_ENCODING, values)),
                gzip,
                "{values:?}"
            );
        }
    }

    #[test]
    fn html_is_for_browsers() {
        let accepts_html = |values: &[&str]| accepts(&headers(ACCEPT, values), ACCEPT, "text/html");
        let firefox = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        let prometheus =
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(accepts_html(&[firefox]), Some(true));
        assert_eq!(accepts_html(&[prometheus]), None);
        assert_eq!(accepts_html(&["*/*"]), None);
        assert_eq!(accepts_html(&["text/html;q=0"]), Some(false));
        assert_eq!(accepts_html(&[]), None);
    }

    #[test]
    fn finds_and_decodes_a_query_parameter() {
        let query = "a=1&sandbox=ab%2Dc+d%zz&empty=&sandbox=second&%66ilter=x%2Cy";
        assert_eq!(query_value(query, "sandbox").as_deref(), Some("ab-c d%zz"));
        assert_eq!(query_value(query, "filter").as_deref(), Some("x,y"));
        assert_eq!(query_value(query, "empty"), None);
        assert_eq!(query_value(query, "missing"), None);
        assert_eq!(query_value("sandbox=%ff", "sandbox").as_deref(), Some("\u{fffd}"));
    }

    proptest! {
        #[test]
        fn whatever_is_sent_can_be_read(value in "[ -~]*") {
            accepts_gzip(&headers(ACCEPT_ENCODING, &[&value]));
            query_value(&value, "a");
        }
    }
}
