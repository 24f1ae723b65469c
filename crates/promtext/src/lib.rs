#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::string_slice, clippy::unreachable))]

mod cursor;
mod escape;
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
mod writer;

pub use fault::{Error, Fault, LineFault, MAX_LABELS, MAX_LINE, MAX_NAMES, MAX_PAGE, Tally};
pub use filter::Filter;
pub use kind::Kind;
pub use merge::Merge;
pub use page::Page;
pub use reader::PageReader;
pub use relabel::Relabel;
pub use writer::{FamilyWriter, Value, Writer};

/// Counts the samples of a page, to check what another reader made of it.
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
