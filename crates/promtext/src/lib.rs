//! Metrics in the Prometheus text format (0.0.4): read, relabelled, joined, written. No I/O, and no number is
//! ever read and printed again: what a sandbox wrote as `9.223372036854776e+18` is served so.
//!
//! One scrape goes through it like this. Each sandbox's answer becomes a [`Page`] (by a [`PageReader`], where there are many), with a [`Relabel`] that
//! says which labels and prefix it is served with; the families of one's own come out of a [`Writer`] as a
//! page as well. A [`Merge`] of all of them writes the node's page, chunk by chunk; a [`Filter`] chooses
//! families. With one page and no relabelling, that is also a filter and a sorter for one sandbox's metrics.
//!
//! The joined page is one that Prometheus and `promtool check metrics` take, whatever the sandboxes sent: one
//! group, one HELP and one TYPE for each family, families in order of their names, every label value escaped,
//! no label and no series twice. Lines that Prometheus would fail the scrape over are left out and counted
//! ([`Tally`]).

#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::string_slice, clippy::unreachable))]

mod cursor;
mod fault;
mod filter;
mod index;
mod kind;
mod layout;
mod lexer;
mod merge;
mod number;
mod page;
mod plan;
mod reader;
mod relabel;
#[cfg(test)]
mod tests;
mod writer;

pub use fault::{Fault, LineFault, MAX_LABELS, MAX_LINE, MAX_NAMES};
pub use filter::Filter;
pub use kind::Kind;
pub use merge::Merge;
pub use page::{MAX_PAGE, Page, PageTooLong, Tally};
pub use reader::PageReader;
pub use relabel::Relabel;
pub use writer::{FamilyWriter, Value, Writer};

/// How many samples are in a page, for checking what another reader made of it.
///
/// ```
/// assert_eq!(promtext::count_samples(b"# TYPE a:b gauge\na:b{c=\"}\"} 1\nd {} 2 1700000000000\n?\n"), 2);
/// ```
pub fn count_samples(body: &[u8]) -> usize {
    let mut lexer = lexer::Lexer::new(body);
    lexer::lines(body)
        .filter(|(_, line)| matches!(lexer.read(line), Ok(lexer::Line::Sample(_))))
        .count()
}
