//! Merges the metrics of several files into one page: `merge FILE...`. Each file's samples get a label `file`.

use std::io::{self, Write};

use promtext::{Filter, Merge, Page, Relabel};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut pages = Vec::new();
    for path in std::env::args().skip(1) {
        let relabel = Relabel::new([("file", path.as_str())])?;
        pages.push(Page::read(std::fs::read(&path)?, relabel)?);
    }
    let page = Merge::new(pages, &Filter::default()).into_bytes();
    Ok(io::stdout().lock().write_all(&page)?)
}
