//! What a client says it takes: encodings, and whether it is a browser.

use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderName};

/// Whether the answer is to be compressed with gzip: the client takes that, and does not like it less than an
/// answer that is not compressed (RFC 9110, 12.5.3).
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut identity, mut any) = (None, None, None);
    for (coding, weight) in preferences(headers, ACCEPT_ENCODING) {
        let place = match coding.as_str() {
            "gzip" | "x-gzip" => &mut gzip,
            "identity" => &mut identity,
            "*" => &mut any,
            _ => continue,
        };
        *place = Some(weight.max(place.unwrap_or(0)));
    }
    let gzip = gzip.or(any).unwrap_or(0);
    gzip > 0 && gzip >= identity.unwrap_or(0)
}

/// Whether the client is one that shows HTML to a person.
pub fn takes_html(headers: &HeaderMap) -> bool {
    preferences(headers, ACCEPT).any(|(kind, weight)| kind == "text/html" && weight > 0)
}

/// The things that a header lists, in lower case, with their weights in thousandths.
fn preferences(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = (String, u16)> {
    let values = headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        let thing = parts
            .next()
            .filter(|thing| !thing.is_empty())?
            .to_ascii_lowercase();
        let weight = parts.find_map(|part| {
            let (key, value) = part.split_once('=')?;
            key.trim()
                .eq_ignore_ascii_case("q")
                .then(|| thousandths(value.trim()))
        });
        Some((thing, weight.unwrap_or(1000)))
    })
}

/// A weight: `0` to `1` with up to three decimals. What is none counts as a refusal.
fn thousandths(text: &str) -> u16 {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return 0;
    }
    match whole {
        "0" => format!("{decimals:0<3}").parse().unwrap_or(0),
        "1" if decimals.bytes().all(|byte| byte == b'0') => 1000,
        _ => 0,
    }
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
    fn gzip_is_sent_to_those_who_take_it() {
        for (values, gzip) in [
            (&["gzip"][..], true),
            (&["GZip"], true),
            (&["x-gzip"], true),
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
            (&["gzip;q=0.5, identity;q=0.8"], false),
            (&["deflate"], false),
            (&["gzipped"], false),
            (&["gzip;q=yes"], false),
            (&["gzip;q=2"], false),
            (&["gzip;q=1.001"], false),
        ] {
            assert_eq!(takes_gzip(&headers(ACCEPT_ENCODING, values)), gzip, "{values:?}");
        }
    }

    #[test]
    fn html_is_for_browsers() {
        let firefox = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        let prometheus =
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert!(takes_html(&headers(ACCEPT, &[firefox])));
        assert!(!takes_html(&headers(ACCEPT, &[prometheus])));
        assert!(!takes_html(&headers(ACCEPT, &["*/*"])));
        assert!(!takes_html(&headers(ACCEPT, &["text/html;q=0"])));
        assert!(!takes_html(&HeaderMap::new()));
    }

    proptest! {
        #[test]
        fn never_panics(value in "[ -~]*") {
            let headers = headers(ACCEPT_ENCODING, &[&value]);
            let _ = takes_gzip(&headers);
        }
    }
}
