//! Answers, written as they are sent.

use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::StatusCode;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, VARY,
};

use crate::connections::Answering;

/// How much is written at a time. What a stalled client can hold in buffers is a few of these.
const CHUNK: usize = 64 << 10;

/// Of a page of 18 MB, level 6 leaves 1.0 MB instead of 1.5, and takes four times as long.
const EFFORT: Compression = Compression::new(1);
const MORE_EFFORT: Compression = Compression::new(6);

const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// Writes a page of metrics part by part, so that it is never in memory whole.
pub trait Source: Send {
    /// Appends at least `least` bytes, or what is left. Returns whether there is more.
    fn fill(&mut self, out: &mut Vec<u8>, least: usize) -> bool;
}

impl Source for Bytes {
    fn fill(&mut self, out: &mut Vec<u8>, least: usize) -> bool {
        out.extend_from_slice(&self.split_to(least.min(self.len())));
        !self.is_empty()
    }
}

/// An answer. None is to be cached.
pub struct Response {
    status: StatusCode,
    headers: HeaderMap,
    content: Content,
    /// How hard it is compressed where the client accepts that.
    compression: Option<Compression>,
}

impl Response {
    /// A short text for people and scripts.
    pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Self {
        Self::new(status, TEXT, Content::Whole(text.into()))
    }

    /// A page for browsers. Whatever is not yours to vouch for must have been escaped.
    pub fn html(page: impl Into<Bytes>) -> Self {
        Self::new(StatusCode::OK, HTML, Content::Whole(page.into()))
    }

    /// Metrics in Prometheus's text format, compressed where the client accepts it.
    pub fn metrics(text: impl Into<Bytes>) -> Self {
        let mut response = Self::new(StatusCode::OK, METRICS, Content::Whole(text.into()));
        response.compression = Some(EFFORT);
        response
    }

    /// The same, written part by part as the client takes it.
    pub fn metrics_from(source: impl Source + 'static) -> Self {
        let mut response = Self::new(StatusCode::OK, METRICS, Content::Parts(Box::new(source)));
        response.compression = Some(EFFORT);
        response
    }

    /// Compresses metrics to a third less, for four times the time.
    #[must_use]
    pub fn compressed_harder(mut self) -> Self {
        self.compression = self.compression.and(Some(MORE_EFFORT));
        self
    }

    /// Adds a header, or replaces one.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    fn new(status: StatusCode, kind: &'static str, content: Content) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Self {
            status,
            headers,
            content,
            compression: None,
        }
    }

    /// What is sent. The request is answered when its body is gone.
    pub(crate) fn into_http(
        mut self,
        accepts_gzip: bool,
        answering: Arc<Answering>,
    ) -> hyper::Response<Sent> {
        if let Some(effort) = self.compression {
            self.headers
                .insert(VARY, HeaderValue::from_static("Accept-Encoding"));
            if accepts_gzip && !self.content.is_empty() {
                self.headers
                    .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                self.content = self.content.compressed(effort);
            }
        }
        let mut response = hyper::Response::new(Sent {
            content: self.content,
            answering,
        });
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

enum Content {
    Whole(Bytes),
    Parts(Box<dyn Source>),
    Gzip(Box<Gzip>),
    Done,
}

impl Content {
    fn compressed(self, effort: Compression) -> Self {
        match self {
            Self::Whole(text) => Self::Gzip(Box::new(Gzip::new(Box::new(text), effort))),
            Self::Parts(source) => Self::Gzip(Box::new(Gzip::new(source, effort))),
            other => other,
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Whole(text) => text.is_empty(),
            Self::Done => true,
            Self::Parts(_) | Self::Gzip(_) => false,
        }
    }

    /// The next part, and whether there is more.
    fn part(&mut self) -> (Bytes, bool) {
        match self {
            Self::Whole(text) => (text.split_to(CHUNK.min(text.len())), !text.is_empty()),
            Self::Parts(source) => {
                let mut part = Vec::with_capacity(CHUNK + CHUNK / 16);
                let more = source.fill(&mut part, CHUNK);
                (part.into(), more)
            }
            Self::Gzip(gzip) => gzip.part(),
            Self::Done => (Bytes::new(), false),
        }
    }
}

/// The body of an answer on its way.
pub(crate) struct Sent {
    content: Content,
    answering: Arc<Answering>,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        // hyper asks for more when the client has taken enough of what it was sent.
        self.answering.moved();
        let (part, more) = self.content.part();
        if !more {
            self.content = Content::Done;
        }
        Poll::Ready((!part.is_empty()).then(|| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(text) => SizeHint::with_exact(text.len() as u64),
            Content::Done => SizeHint::with_exact(0),
            Content::Parts(_) | Content::Gzip(_) => SizeHint::default(),
        }
    }
}

/// A page on its way through gzip.
struct Gzip {
    source: Box<dyn Source>,
    plain: Vec<u8>,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Gzip {
    fn new(source: Box<dyn Source>, effort: Compression) -> Self {
        Self {
            source,
            plain: Vec::with_capacity(CHUNK + CHUNK / 16),
            encoder: Some(GzEncoder::new(Vec::new(), effort)),
        }
    }

    /// The next part, and whether there is more.
    fn part(&mut self) -> (Bytes, bool) {
        while let Some(encoder) = &mut self.encoder {
            self.plain.clear();
            let more = self.source.fill(&mut self.plain, CHUNK);
            // Writing to memory does not fail.
            let _ = encoder.write_all(&self.plain);
            if !more {
                let last = self.encoder.take().and_then(|encoder| encoder.finish().ok());
                return (last.unwrap_or_default().into(), false);
            }
            if !encoder.get_ref().is_empty() {
                return (std::mem::take(encoder.get_mut()).into(), true);
            }
        }
        (Bytes::new(), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::Connections;
    use http_body_util::BodyExt;
    use std::io::Read;

    /// Lines that differ, as many as said.
    struct Lines(usize);

    impl Source for Lines {
        fn fill(&mut self, out: &mut Vec<u8>, least: usize) -> bool {
            while self.0 > 0 && out.len() < least {
                out.extend_from_slice(format!("line{{number=\"{}\"}} 1\n", self.0).as_bytes());
                self.0 -= 1;
            }
            self.0 > 0
        }
    }

    fn all(lines: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while Lines(lines).fill(&mut out, usize::MAX) {}
        out
    }

    /// The response's headers, the length that is announced, and the body's frames.
    async fn sent(response: Response, gzip: bool) -> (HeaderMap, Option<u64>, Vec<Bytes>) {
        let place = Connections::new(1).admit().await;
        let response = response.into_http(gzip, Arc::new(place.answering()));
        let (head, mut body) = response.into_parts();
        let length = body.size_hint().exact();
        let mut frames = Vec::new();
        while let Some(frame) = body.frame().await {
            frames.push(frame.unwrap().into_data().unwrap());
        }
        (head.headers, length, frames)
    }

    #[tokio::test]
    async fn pages_go_out_in_parts() {
        let text = all(50_000);
        for response in [
            Response::metrics_from(Lines(50_000)),
            Response::metrics(text.clone()),
            Response::text(StatusCode::OK, text.clone()),
        ] {
            let (_, _, frames) = sent(response, false).await;
            assert!(frames.len() > 10 && frames.iter().all(|frame| frame.len() < CHUNK + 100));
            assert!(frames.concat() == text);
        }
    }

    #[tokio::test]
    async fn gzip_has_the_same_page_in_it() {
        for lines in [1, 50_000] {
            for response in [
                Response::metrics_from(Lines(lines)),
                Response::metrics(all(lines)),
            ] {
                let (headers, length, frames) = sent(response, true).await;
                assert_eq!(headers[CONTENT_ENCODING], "gzip");
                assert_eq!(length, None);
                assert!(frames.iter().all(|frame| !frame.is_empty()));
                let bytes = frames.concat();
                let mut plain = Vec::new();
                flate2::read::GzDecoder::new(&bytes[..])
                    .read_to_end(&mut plain)
                    .unwrap();
                assert!(plain == all(lines), "{lines} lines");
                assert!(lines < 50_000 || bytes.len() * 4 < plain.len());
            }
        }
    }

    #[tokio::test]
    async fn only_metrics_are_compressed_and_caches_are_told() {
        let (headers, length, frames) = sent(Response::text(StatusCode::OK, "ok\n"), true).await;
        assert!(!headers.contains_key(CONTENT_ENCODING) && !headers.contains_key(VARY));
        assert_eq!((length, frames), (Some(3), vec![Bytes::from("ok\n")]));
        let (headers, length, _) = sent(Response::metrics("up 1\n"), false).await;
        assert_eq!(
            (&headers[VARY], length),
            (&HeaderValue::from_static("Accept-Encoding"), Some(5))
        );
        assert!(!headers.contains_key(CONTENT_ENCODING));
        let (_, length, frames) = sent(Response::metrics(""), true).await;
        assert_eq!((length, frames.len()), (Some(0), 0));
    }
}
