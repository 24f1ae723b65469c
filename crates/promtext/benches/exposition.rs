//! What joining the pages of many sandboxes costs, beside copying the bytes of the same joined page.
//!
//! `cargo bench -p promtext`. "bytes" counts what is read (index, read), or what is written (the others).

#![allow(clippy::restriction)] // A benchmark may panic.

use bytes::Bytes;
use divan::{AllocProfiler, Bencher, counter::BytesCount};
use promtext::{Filter, Merge, Page, PageReader, Relabel};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

const RECORDED: &str = include_str!("../tests/fixtures/kata-3.30-go/metrics.txt");

/// As an exporter sends it.
const CHUNK: usize = 64 << 10;

fn main() {
    divan::main();
}

fn relabel(sandbox: usize) -> Relabel {
    let id = format!("{sandbox:064x}");
    let uid = format!("7c312b48-3d0f-4f4e-9c3a-{sandbox:012x}");
    Relabel::kata(&id, &uid, &format!("web-5d5c9b7f6c-{sandbox:05}"), "production")
}

fn bodies(sandboxes: usize) -> Vec<Bytes> {
    (0..sandboxes)
        .map(|_| Bytes::from(RECORDED.as_bytes().to_vec()))
        .collect()
}

/// Reads them as an exporter does, which has seen such pages before.
fn pages(bodies: &[Bytes]) -> Vec<Page> {
    let reader = PageReader::default();
    let page = |(at, body): (usize, &Bytes)| reader.read(body.clone(), relabel(at)).unwrap();
    bodies.iter().enumerate().map(page).collect()
}

/// Writes the joined page into one buffer after another; its length.
fn written(pages: &[Page], chunk: &mut Vec<u8>) -> usize {
    let mut merge = Merge::new(pages.iter().collect(), &Filter::default());
    let mut len = 0;
    loop {
        let more = merge.fill(chunk, CHUNK);
        len += divan::black_box(&*chunk).len();
        chunk.clear();
        if !more {
            return len;
        }
    }
}

fn length(bodies: &[Bytes]) -> usize {
    written(&pages(bodies), &mut Vec::with_capacity(2 * CHUNK))
}

#[divan::bench(args = [1, 100, 1000])]
fn index(bencher: Bencher, sandboxes: usize) {
    let bodies = bodies(sandboxes);
    let index = |(at, body): (usize, &Bytes)| Page::index(body.clone(), relabel(at)).unwrap();
    bencher
        .counter(BytesCount::new(sandboxes * RECORDED.len()))
        .bench_local(|| bodies.iter().enumerate().map(index).collect::<Vec<_>>());
}

#[divan::bench(args = [1, 100, 1000])]
fn read(bencher: Bencher, sandboxes: usize) {
    let bodies = bodies(sandboxes);
    bencher
        .counter(BytesCount::new(sandboxes * RECORDED.len()))
        .bench_local(|| pages(&bodies));
}

#[divan::bench(args = [1, 100, 1000])]
fn merge(bencher: Bencher, sandboxes: usize) {
    let bodies = bodies(sandboxes);
    let pages = pages(&bodies);
    let mut chunk = Vec::with_capacity(2 * CHUNK);
    bencher
        .counter(BytesCount::new(length(&bodies)))
        .bench_local(|| written(&pages, &mut chunk));
}

#[divan::bench(args = [1, 100, 1000])]
fn read_and_merge(bencher: Bencher, sandboxes: usize) {
    let bodies = bodies(sandboxes);
    let mut chunk = Vec::with_capacity(2 * CHUNK);
    bencher
        .counter(BytesCount::new(length(&bodies)))
        .bench_local(|| written(&pages(&bodies), &mut chunk));
}

/// The joined page, already there, into a buffer chunk by chunk.
#[divan::bench(args = [1, 100, 1000])]
fn copy(bencher: Bencher, sandboxes: usize) {
    let page = Merge::new(pages(&bodies(sandboxes)), &Filter::default()).into_bytes();
    let mut chunk = Vec::with_capacity(2 * CHUNK);
    bencher
        .counter(BytesCount::of_slice(page.as_slice()))
        .bench_local(|| {
            for part in page.chunks(CHUNK) {
                chunk.clear();
                chunk.extend_from_slice(part);
                divan::black_box(&chunk);
            }
        });
}
