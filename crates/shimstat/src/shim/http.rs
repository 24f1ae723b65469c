//! An HTTP/1.1 response as its bytes come in: what a GET needs of it, and no more.
//!
//! Bodies are decoded in the buffer that they were read into: with a thousand sandboxes it is this copying that a
//! scrape's time goes to.

use httparse::{EMPTY_HEADER, Header, Status};
use memchr::memchr;

/// The longest head that is read, in bytes.
const HEAD_LIMIT: usize = 64 << 10;

/// The most header fields that are read.
const HEADERS_LIMIT: usize = 100;

/// The longest line of a chunked body that has no content in it: a chunk's size, or a trailing header field.
const LINE_LIMIT: usize = 4 << 10;

/// Why a response cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection was closed before the response was complete.
    Cut,
    /// Another status than 200.
    Status(u16),
    /// A body that is encoded as nobody asked for.
    Encoding(String),
    /// A longer body than is taken.
    TooLong,
    /// The answer is not HTTP/1.1.
    Malformed(String),
}

/// A response that is being read: append to [`buffer`](Self::buffer) what comes, and say so with
/// [`advance`](Self::advance).
pub(super) struct Response {
    /// The head as far as it is there; after it the body, decoded up to what came last.
    pub buffer: Vec<u8>,
    /// The longest body that is taken, in bytes.
    most: usize,
    /// How much of the buffer has been looked at.
    seen: usize,
    state: ChunkState,
}

enum ChunkState {
    Head,
    /// A body of a known length.
    Length(usize),
    Chunks(Chunks),
    /// A body that ends with the connection.
    Rest,
}

/// A chunked body. The buffer begins with what is decoded of it.
struct Chunks {
    decoded: usize,
    next: Next,
}

/// What comes next in a chunked body.
enum Next {
    Size,
    /// So much is left of a chunk.
    Content(usize),
    /// The line feed behind a chunk.
    End,
    /// Header fields and an empty line after the last chunk.
    Trailer,
}

impl Response {
    /// For a body of at most `most` bytes. `room` is made for the response at once.
    pub fn new(most: usize, room: usize) -> Self {
        Self {
            buffer: Vec::with_capacity(room),
            most,
            seen: 0,
            state: ChunkState::Head,
        }
    }

    /// Looks at what has been added to the buffer. With `true` the body is complete, and all that is in it.
    pub fn advance(&mut self) -> Result<bool, Fault> {
        if let ChunkState::Head = self.state {
            let new = self.buffer.get(self.seen..).unwrap_or_default();
            // A head ends with a line; looking again at every byte would be work for a server that sends them one by one.
            let complete = memchr(b'\n', new).is_some() && self.head()?;
            self.seen = self.buffer.len();
            if !complete {
                return if self.buffer.len() > HEAD_LIMIT {
                    Err(malformed(format!("a head of more than {HEAD_LIMIT} bytes")))
                } else {
                    Ok(false)
                };
            }
        }
        match &mut self.state {
            ChunkState::Head => Ok(false),
            ChunkState::Length(length) => {
                let complete = self.buffer.len() >= *length;
                self.buffer.truncate(*length);
                Ok(complete)
            }
            ChunkState::Chunks(chunks) => chunks.decode(&mut self.buffer, self.most),
            ChunkState::Rest if self.buffer.len() > self.most => Err(Fault::TooLong),
            ChunkState::Rest => Ok(false),
        }
    }

    /// The other side has closed the connection. `Ok`: that is how the body ends.
    pub fn close(&self) -> Result<(), Fault> {
        match self.state {
            ChunkState::Rest => Ok(()),
            _ => Err(Fault::Cut),
        }
    }

    /// Reads the head, and takes it off the buffer; whether it was all there.
    fn head(&mut self) -> Result<bool, Fault> {
        loop {
            let mut headers = [EMPTY_HEADER; HEADERS_LIMIT];
            let mut response = httparse::Response::new(&mut headers);
            let length = match response.parse(&self.buffer) {
                Ok(Status::Complete(length)) => length,
                Ok(Status::Partial) => return Ok(false),
                Err(error) => return Err(malformed(error.to_string())),
            };
            let interim = matches!(response.code, Some(100..=199));
            let state = match response.code {
                _ if interim => ChunkState::Head,
                Some(200) => framing(response.headers, self.most)?,
                status => return Err(Fault::Status(status.unwrap_or_default())),
            };
            self.buffer.drain(..length);
            self.state = state;
            if !interim {
                return Ok(true);
            }
        }
    }
}

/// How the body is framed.
fn framing(headers: &[Header<'_>], most: usize) -> Result<ChunkState, Fault> {
    if let Some(encoding) = values(headers, "content-encoding").find(|v| !v.eq_ignore_ascii_case("identity"))
    {
        return Err(Fault::Encoding(encoding));
    }
    let mut chunked = false;
    for coding in values(headers, "transfer-encoding") {
        if !coding.eq_ignore_ascii_case("chunked") {
            return Err(Fault::Encoding(coding));
        }
        chunked = true;
    }
    if chunked {
        return Ok(ChunkState::Chunks(Chunks {
            decoded: 0,
            next: Next::Size,
        }));
    }
    let mut length = None;
    for value in values(headers, "content-length") {
        let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let one: usize = match value.parse() {
            Ok(one) if digits => one,
            _ if digits => return Err(Fault::TooLong),
            _ => return Err(malformed(format!("a Content-Length of {value:?}"))),
        };
        if *length.get_or_insert(one) != one {
            return Err(malformed("two lengths".to_string()));
        }
    }
    match length {
        Some(length) if length > most => Err(Fault::TooLong),
        Some(length) => Ok(ChunkState::Length(length)),
        None => Ok(ChunkState::Rest),
    }
}

/// The members of all lists under one name, none longer than is worth showing.
fn values<'a>(headers: &'a [Header<'_>], name: &'a str) -> impl Iterator<Item = String> + 'a {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .flat_map(|header| header.value.split(|&byte| byte == b','))
        .map(|member| String::from_utf8_lossy(member).trim().chars().take(40).collect())
}

impl Chunks {
    /// Decodes what is in the buffer behind what is decoded, in its place; whether that was all.
    fn decode(&mut self, buffer: &mut Vec<u8>, most: usize) -> Result<bool, Fault> {
        let mut at = self.decoded;
        let done = loop {
            let rest = buffer.get(at..).unwrap_or_default();
            match self.next {
                Next::Size => match httparse::parse_chunk_size(rest) {
                    Ok(Status::Complete((line, size))) => {
                        at += line;
                        self.next = match usize::try_from(size) {
                            Ok(0) => Next::Trailer,
                            Ok(size) if size <= most.saturating_sub(self.decoded) => Next::Content(size),
                            _ => return Err(Fault::TooLong),
                        };
                    }
                    Ok(Status::Partial) if rest.len() <= LINE_LIMIT => break false,
                    _ => return Err(malformed("no size where a chunk begins".to_string())),
                },
                Next::Content(left) => {
                    let here = left.min(rest.len());
                    buffer.copy_within(at..at + here, self.decoded);
                    at += here;
                    self.decoded += here;
                    if here < left {
                        self.next = Next::Content(left - here);
                        break false;
                    }
                    self.next = Next::End;
                }
                Next::End => match rest {
                    [b'\r', b'\n', ..] => {
                        at += 2;
                        self.next = Next::Size;
                    }
                    [] | [b'\r'] => break false,
                    _ => return Err(malformed("a chunk that does not end where it should".to_string())),
                },
                Next::Trailer => match memchr(b'\n', rest) {
                    Some(end) => {
                        at += end + 1;
                        if matches!(rest.get(..end), Some([] | [b'\r'])) {
                            break true;
                        }
                    }
                    None if rest.len() <= LINE_LIMIT => break false,
                    None => return Err(malformed("a trailer without an end".to_string())),
                },
            }
        };
        if done {
            buffer.truncate(self.decoded);
        } else {
            buffer.drain(self.decoded..at);
        }
        Ok(done)
    }
}

fn malformed(reason: String) -> Fault {
    Fault::Malformed(reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What comes of the bytes in pieces of a size, the connection closed behind them.
    fn read_by(bytes: &[u8], size: usize, most: usize) -> Result<Vec<u8>, Fault> {
        let mut response = Response::new(most, 0);
        for piece in bytes.chunks(size) {
            response.buffer.extend_from_slice(piece);
            if response.advance()? {
                return Ok(response.buffer);
            }
        }
        response.close()?;
        Ok(response.buffer)
    }

    /// The same, which must not depend on the pieces.
    fn read(text: &str) -> Result<Vec<u8>, Fault> {
        let whole = read_by(text.as_bytes(), usize::MAX, 100);
        for size in [1, 2, 3, 7] {
            assert_eq!(read_by(text.as_bytes(), size, 100), whole, "{size}: {text:?}");
        }
        whole
    }

    fn body(text: &str) -> String {
        String::from_utf8(read(text).unwrap()).unwrap()
    }

    #[test]
    fn every_framing_of_a_body_is_read() {
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"), "abc");
        assert_eq!(body("HTTP/1.1 200 OK\r\ncontent-length: 3, 3\r\n\r\nabc"), "abc");
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), "");
        assert_eq!(body("HTTP/1.0 200 OK\r\n\r\nabc\r\n\r\n"), "abc\r\n\r\n");
        assert_eq!(
            body("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200\r\nContent-Length: 1\r\n\r\na"),
            "a"
        );
        let early = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(50));
        for before in [1, 2] {
            let text = early.repeat(before) + "HTTP/1.0 200\r\n\r\nab";
            assert_eq!(body(&text), "ab", "{before}");
        }
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nContent-Length: 1\r\n\r\n";
        assert_eq!(
            body(&format!(
                "{chunked}3\r\nabc\r\n0A;x=\"y\"\r\n0123456789\r\n0\r\n\r\n"
            )),
            "abc0123456789"
        );
        assert_eq!(
            body(&format!("{chunked}1\r\na\r\n0\r\nX: y\r\nZ: 0\r\n\r\n")),
            "a"
        );
        assert_eq!(body(&format!("{chunked}0\r\n\r\n")), "");
        // Nothing was asked that could be answered behind the body.
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabc"), "a");
    }

    #[test]
    fn a_response_that_ends_early_is_cut() {
        let plain = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        for whole in [plain, chunked] {
            assert!(read(whole).is_ok());
            for end in 0..whole.len() {
                assert_eq!(read(&whole[..end]), Err(Fault::Cut), "{:?}", &whole[..end]);
            }
        }
    }

    #[test]
    fn a_body_has_a_limit_however_it_is_framed() {
        let hundred = "x".repeat(100);
        for fits in [
            format!("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{hundred}"),
            format!("HTTP/1.1 200 OK\r\n\r\n{hundred}"),
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n{hundred}\r\n0\r\n\r\n"),
        ] {
            assert_eq!(read(&fits).unwrap(), hundred.as_bytes());
        }
        for long in [
            "Content-Length: 101\r\n\r\n".to_string(),
            "Content-Length: 99999999999999999999999999\r\n\r\n".to_string(),
            format!("\r\n{hundred}x"),
            "Transfer-Encoding: chunked\r\n\r\n65\r\n".to_string(),
            "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n".to_string(),
            format!(
                "Transfer-Encoding: chunked\r\n\r\n63\r\n{}\r\n2\r\n",
                &hundred[1..]
            ),
        ] {
            assert_eq!(
                read(&format!("HTTP/1.1 200 OK\r\n{long}")),
                Err(Fault::TooLong),
                "{long}"
            );
        }
    }

    #[test]
    fn what_cannot_be_used_is_told_apart() {
        let answer = |head: &str| read(&format!("HTTP/1.1 {head}\r\n\r\n"));
        assert_eq!(
            answer("404 Not Found\r\nContent-Length: 0"),
            Err(Fault::Status(404))
        );
        assert_eq!(answer("204 No Content"), Err(Fault::Status(204)));
        for (coding, named) in [
            ("Content-Encoding: gzip", "gzip"),
            ("Content-Encoding: identity, br", "br"),
            ("Transfer-Encoding: gzip, chunked", "gzip"),
        ] {
            let error = answer(&format!("200 OK\r\n{coding}"));
            assert_eq!(error, Err(Fault::Encoding(named.to_string())), "{coding}");
        }
        for bad in [
            "\0\0\0\x05ttrpc\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        ] {
            assert!(matches!(read(bad), Err(Fault::Malformed(_))), "{bad:?}");
        }
    }

    #[test]
    fn what_has_no_end_has_a_limit() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (start, endless) in [
            ("HTTP/1.1 200 OK\r\nX: ", "x"),
            ("HTTP/1.1 200 OK\r\n", "X: y\r\n"),
            (chunked, "0"),
            (&format!("{chunked}1;"), "x"),
            (&format!("{chunked}0\r\n"), "x"),
        ] {
            let bytes = format!("{start}{}", endless.repeat(2 * HEAD_LIMIT / endless.len()));
            let mut response = Response::new(1 << 30, 0);
            let ended = bytes.as_bytes().chunks(1000).any(|piece| {
                response.buffer.extend_from_slice(piece);
                response.advance().is_err()
            });
            assert!(ended, "{start:?}");
        }
    }

    proptest! {
        #[test]
        fn chunks_come_out_as_they_went_in(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..20),
            size in 1..200_usize,
        ) {
            let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for part in &parts {
                bytes.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                bytes.extend_from_slice(part);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(read_by(&bytes, size, 1 << 20), Ok(parts.concat()));
        }

        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), head in 0..3_usize, size in 1..50_usize) {
            let heads: [&[u8]; 3] = [
                b"",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
            ];
            let _ = read_by(&[heads[head], &bytes].concat(), size, 100);
        }
    }
}
