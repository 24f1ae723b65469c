//! The text of `/proc/<pid>/net/dev`, `tcp`, `tcp6`, `udp` and `udp6`, as bytes; who reads the files is
//! another matter.
//!
//! A text that is not as the kernel writes it, or that ends within a line, is an error as a whole: a
//! number that was cut off is still a number, but a wrong one.

use thiserror::Error;

use super::model::{Interface, TcpCounts, UdpCounts};

/// The longest line taken, in bytes. The kernel's are below 256.
const LONGEST_LINE: usize = 1024;

/// A table of `/proc/<pid>/net` is not as the kernel writes it: nothing in it is to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("line {line}: {fault}")]
pub struct MalformedTable {
    /// The line, counted from 1.
    pub line: u64,
    /// What is wrong with it.
    pub fault: &'static str,
}

/// Reads the text of `/proc/<pid>/net/dev`. Bytes of a name that are not UTF-8 become U+FFFD.
pub fn parse_interfaces(text: &[u8]) -> Result<Vec<Interface>, MalformedTable> {
    let rows = parse_interface_rows(text)?;
    Ok(rows.into_iter().map(Interface::from).collect())
}

/// An interface's name, and its counters in the order of `/proc/<pid>/net/dev`: received bytes, packets, errs, drop,
/// fifo, frame, compressed, multicast; sent bytes, packets, errs, drop, fifo, colls, carrier, compressed.
pub(crate) type InterfaceRow = (String, [u64; 16]);

/// Reads all columns of `/proc/<pid>/net/dev`.
pub(crate) fn parse_interface_rows(text: &[u8]) -> Result<Vec<InterfaceRow>, MalformedTable> {
    let mut interfaces = Vec::new();
    let mut number = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        number += 1;
        let malformed = |fault| MalformedTable { line: number, fault };
        let line = line
            .strip_suffix(b"\n")
            .ok_or(malformed("the text ends within a line"))?;
        match number {
            1 if line.starts_with(b"Inter-|") => {}
            2 if line.starts_with(b" face |bytes") => {}
            1 | 2 => return Err(malformed("not the table's header")),
            _ => interfaces.push(interface_row(line).ok_or(malformed("not an interface's row"))?),
        }
    }
    if number < 2 {
        return Err(MalformedTable {
            line: number,
            fault: "the text ends before the table begins",
        });
    }
    Ok(interfaces)
}

/// `  eth0: 1 2 …`, or `eth0:1 2 …` from old kernels; these allowed a colon in the name, too.
fn interface_row(line: &[u8]) -> Option<InterfaceRow> {
    let colon = line.iter().rposition(|byte| *byte == b':')?;
    let (name, counters) = line.split_at_checked(colon)?;
    let name = name.trim_ascii_start();
    let mut columns = columns(counters.strip_prefix(b":")?);
    let mut counters = [0; 16];
    for counter in &mut counters {
        *counter = number(columns.next()?, 10)?;
    }
    if name.is_empty() || columns.next().is_some() {
        return None;
    }
    Some((String::from_utf8_lossy(name).into_owned(), counters))
}

impl From<InterfaceRow> for Interface {
    fn from((name, counters): InterfaceRow) -> Self {
        let [rx_bytes, rx_packets, rx_errors, rx_dropped, _, _, _, _, sent @ ..] = counters;
        let [tx_bytes, tx_packets, tx_errors, tx_dropped, _, _, _, _] = sent;
        Self {
            name,
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
        }
    }
}

impl Interface {
    /// Whether it is one of the pod's own links to the outside, whose counters add up to the pod's traffic.
    ///
    /// Left out are `lo`; what Kata puts between the pod's link and its guest (`tap0_kata`, `br0_kata`), where each packet
    /// passes a second time in the opposite direction; and the inside of an engine that runs in the pod: the host's ends
    /// of its containers' links (`veth*`) and its bridges (`docker0`, `nerdctl0`, and `br-` with twelve digits of a
    /// network's id). cAdvisor leaves out `lo*`, `veth*`, `docker*` and `nerdctl*` (`ignoredDevices` in its
    /// `lib/container/libcontainer/handler.go`, July 2026).
    pub fn is_pods_own(&self) -> bool {
        let name = self.name.as_str();
        let is_katas = name.ends_with("_kata") && (name.starts_with("tap") || name.starts_with("br"));
        let is_engines = ["veth", "docker", "nerdctl"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        name != "lo" && !is_katas && !is_engines && !is_engines_bridge(name)
    }
}

/// `br-` and the first twelve digits of a network's id, as Docker and nerdctl call the bridge of a network.
fn is_engines_bridge(name: &str) -> bool {
    name.strip_prefix("br-")
        .is_some_and(|id| id.len() == 12 && id.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// One of the socket tables, counted while it is read: they can be tens of megabytes long, and only a
/// line that is not complete yet is kept.
///
/// ```
/// use shimstat::stats::{SocketTable, TcpCounts};
///
/// # let (first, second) = (&b"  sl  local_address rem_address   st tx_queue rx_queue\n"[..], &b""[..]);
/// let mut table = SocketTable::<TcpCounts>::default();
/// table.feed(first)?;
/// table.feed(second)?;
/// let counts = table.finish()?;
/// # assert_eq!(counts, TcpCounts::default());
/// # Ok::<(), shimstat::stats::MalformedTable>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct SocketTable<Counts> {
    counts: Counts,
    lines: u64,
    incomplete: Vec<u8>,
    malformed: Option<MalformedTable>,
}

impl<Counts: SocketCounts> SocketTable<Counts> {
    /// Takes the next part of the text, cut anywhere. After an error, each further call returns the same error.
    pub fn feed(&mut self, part: &[u8]) -> Result<(), MalformedTable> {
        if let Some(malformed) = self.malformed {
            return Err(malformed);
        }
        for piece in part.split_inclusive(|byte| *byte == b'\n') {
            if self.incomplete.len().saturating_add(piece.len()) > LONGEST_LINE {
                return self.refuse("the line is too long");
            }
            let well_formed = match piece.strip_suffix(b"\n") {
                None => {
                    self.incomplete.extend_from_slice(piece);
                    continue;
                }
                Some(line) if self.incomplete.is_empty() => self.line(line),
                Some(rest) => {
                    let mut line = std::mem::take(&mut self.incomplete);
                    line.extend_from_slice(rest);
                    self.line(&line)
                }
            };
            if well_formed.is_none() {
                return self.refuse("not as the kernel writes this table");
            }
            self.lines += 1;
        }
        Ok(())
    }

    /// The counts, once the whole text was fed.
    pub fn finish(mut self) -> Result<Counts, MalformedTable> {
        self.feed(b"")?;
        if self.lines == 0 || !self.incomplete.is_empty() {
            self.refuse("the text ends here")?;
        }
        Ok(self.counts)
    }

    fn line(&mut self, line: &[u8]) -> Option<()> {
        if self.lines == 0 {
            Counts::header(line)
        } else {
            self.counts.add(&Row::parse(line)?)
        }
    }

    fn refuse(&mut self, fault: &'static str) -> Result<(), MalformedTable> {
        let malformed = MalformedTable {
            line: self.lines.saturating_add(1),
            fault,
        };
        self.malformed = Some(malformed);
        Err(malformed)
    }
}

mod sealed {
    /// What the row of a socket has in common for TCP and UDP, IPv4 and IPv6.
    pub struct Row<'a> {
        pub state: u64,
        pub tx_queue: u64,
        pub rx_queue: u64,
        pub columns: usize,
        pub last: &'a [u8],
    }

    pub trait Table {
        /// `None` if the line is not the header of this table.
        fn header(line: &[u8]) -> Option<()>;
        /// Counts a socket. `None` if its row cannot be one of this table.
        fn add(&mut self, row: &Row<'_>) -> Option<()>;
    }
}
use sealed::{Row, Table};

/// What a [`SocketTable`] can count: [`TcpCounts`] and [`UdpCounts`].
pub trait SocketCounts: Table + Default {}

impl SocketCounts for TcpCounts {}
impl SocketCounts for UdpCounts {}

impl<'a> Row<'a> {
    /// `0: 0100007F:0035 00000000:0000 0A 00000000:00000000 …`: slot, two addresses with ports, state,
    /// the two queues; all but the slot in hexadecimal.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut columns = columns(line);
        let slot = columns.next()?;
        number(slot.strip_suffix(b":")?, 10)?;
        for _ in ["local", "remote"] {
            let (address, port) = halves(columns.next()?)?;
            // An IPv6 address has twice the digits of a number.
            address
                .chunks(16)
                .try_for_each(|digits| number(digits, 16).map(drop))?;
            number(port, 16)?;
        }
        let state = number(columns.next()?, 16)?;
        // The kernel puts the queue of what is to be sent first, whatever the header suggests.
        let (tx_queue, rx_queue) = halves(columns.next()?)?;
        let (mut count, mut last) = (5, &b""[..]);
        for column in columns {
            (count, last) = (count + 1, column);
        }
        Some(Row {
            state,
            tx_queue: number(tx_queue, 16)?,
            rx_queue: number(rx_queue, 16)?,
            columns: count,
            last,
        })
    }
}

impl Table for TcpCounts {
    fn header(line: &[u8]) -> Option<()> {
        socket_header(line).map(drop)
    }

    fn add(&mut self, row: &Row<'_>) -> Option<()> {
        // A row that was cut off has fewer: up to the pointer all of them have these.
        if row.columns < 12 {
            return None;
        }
        let count = match row.state {
            0x01 => &mut self.established,
            0x02 => &mut self.syn_sent,
            0x03 => &mut self.syn_recv,
            0x04 => &mut self.fin_wait1,
            0x05 => &mut self.fin_wait2,
            0x06 => &mut self.time_wait,
            0x07 => &mut self.close,
            0x08 => &mut self.close_wait,
            0x09 => &mut self.last_ack,
            0x0A => &mut self.listen,
            0x0B => &mut self.closing,
            _ => return None,
        };
        *count += 1;
        Some(())
    }
}

impl Table for UdpCounts {
    fn header(line: &[u8]) -> Option<()> {
        // Without this column, the last one is something else (Linux before 2.6.27).
        (socket_header(line)? == b"drops").then_some(())
    }

    fn add(&mut self, row: &Row<'_>) -> Option<()> {
        if row.columns != 13 {
            return None;
        }
        // 07 is "closed", which a UDP socket is for as long as it has no peer.
        self.listen += u64::from(row.state == 0x07);
        self.dropped = self.dropped.checked_add(number(row.last, 10)?)?;
        self.rx_queued = self.rx_queued.checked_add(row.rx_queue)?;
        self.tx_queued = self.tx_queued.checked_add(row.tx_queue)?;
        Some(())
    }
}

/// Its last column, if this is the header of a socket table.
fn socket_header(line: &[u8]) -> Option<&[u8]> {
    let mut columns = columns(line);
    if columns.next() != Some(b"sl") || columns.nth(2) != Some(b"st") {
        return None;
    }
    columns.last()
}

fn columns(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b' ')
        .filter(|column| !column.is_empty())
}

fn halves(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = pair.iter().position(|byte| *byte == b':')?;
    let (first, second) = pair.split_at_checked(colon)?;
    Some((first, second.strip_prefix(b":")?))
}

/// Digits and nothing else; the standard library's parser would take a sign.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = char::from(*digit).to_digit(radix)?;
        number.checked_mul(radix.into())?.checked_add(digit.into())
    })
}

#[cfg(test)]
mod tests;
