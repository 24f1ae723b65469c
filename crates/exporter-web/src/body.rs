//! The body of an answer, made as it is sent.

use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::{Body, Frame, SizeHint};

use super::patience::Answering;

/// How much is made at a time.
const CHUNK: usize = 64 << 10;

/// What an exporter's pages are compressed with: more effort makes them a little smaller, and costs several times
/// the processor time.
const EFFORT: Compression = Compression::new(1);

/// Writes a page part by part.
pub trait Source: Send {
    /// Appends at least `least` bytes, or what is left; whether there is more.
    fn fill(&mut self, out: &mut Vec<u8>, least: usize) -> bool;
}

/// An answer's body.
pub struct Answer {
    content: Content,
    /// The request is answered when the body is gone.
    _answering: Answering,
}

enum Content {
    Whole(Bytes),
    Parts(Box<dyn Source>),
    Gzip(Box<Gzip>),
    Done,
}

impl Answer {
    /// A text that is there already.
    pub fn whole(text: impl Into<Bytes>, answering: Answering) -> Self {
        Self {
            content: Content::Whole(text.into()),
            _answering: answering,
        }
    }

    /// A page that is made as it is sent, compressed or not.
    pub fn parts(source: impl Source + 'static, gzip: bool, answering: Answering) -> Self {
        let content = if gzip {
            Content::Gzip(Box::new(Gzip::new(source)))
        } else {
            Content::Parts(Box::new(source))
        };
        Self {
            content,
            _answering: answering,
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let (part, more) = match &mut self.content {
            Content::Whole(text) => (std::mem::take(text), false),
            Content::Parts(source) => {
                let mut part = Vec::with_capacity(CHUNK + CHUNK / 16);
                let more = source.fill(&mut part, CHUNK);
                (part.into(), more)
            }
            Content::Gzip(gzip) => gzip.part(),
            Content::Done => return Poll::Ready(None),
        };
        if !more {
            self.content = Content::Done;
        }
        Poll::Ready(if part.is_empty() {
            None
        } else {
            Some(Ok(Frame::data(part)))
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(text) => text.is_empty(),
            Content::Done => true,
            _ => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(text) => SizeHint::with_exact(text.len() as u64),
            Content::Done => SizeHint::with_exact(0),
            _ => SizeHint::default(),
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
    fn new(source: impl Source + 'static) -> Self {
        Self {
            source: Box::new(source),
            plain: Vec::with_capacity(CHUNK + CHUNK / 16),
            encoder: Some(GzEncoder::new(Vec::new(), EFFORT)),
        }
    }

    /// The next part; whether there is more.
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
    use crate::patience::Progress;
    use http_body_util::BodyExt;
    use std::io::Read;

    /// Lines that differ, to a number.
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

    /// The body's frames.
    fn frames(body: Answer) -> Vec<Bytes> {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(async {
                let mut body = body;
                let mut frames = Vec::new();
                while let Some(frame) = body.frame().await {
                    frames.push(frame.unwrap().into_data().unwrap());
                }
                frames
            })
    }

    #[test]
    fn a_page_goes_out_in_parts() {
        let frames = frames(Answer::parts(Lines(50_000), false, Progress::new().answering()));
        assert!(frames.len() > 10 && frames.iter().all(|frame| frame.len() < CHUNK + 100));
        assert!(frames.concat() == all(50_000));
    }

    #[test]
    fn gzip_has_the_same_page_in_it() {
        for lines in [0, 1, 50_000] {
            let frames = frames(Answer::parts(Lines(lines), true, Progress::new().answering()));
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

    #[test]
    fn the_request_is_answered_when_the_body_is_gone() {
        let progress = Progress::new();
        let body = Answer::whole("ok\n", progress.answering());
        assert_eq!(body.size_hint().exact(), Some(3));
        assert!(progress.is_answering());
        assert_eq!(frames(body), ["ok\n"]);
        assert!(!progress.is_answering());
        assert!(Answer::whole("", progress.answering()).is_end_stream());
    }
}
