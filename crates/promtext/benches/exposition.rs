//! What it costs to merge the pages of many sources, beside copying the bytes of the merged page.
//!
//! `cargo bench -p promtext`. Throughput is of bytes read (index, read) or written (the others).

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

fn relabel(source: usize) -> Relabel {
    let id = format!("{source:064x}");
    let uid = format!("7c312b48-3d0f-4f4e-9c3a-{source:012x}");
    let name = format!("web-5d5c9b7f6c-{source:05}");
    let labels = [
        ("sandbox_id", id.as_str()),
        ("cri_uid", &uid),
        ("cri_name", &name),
        ("cri_namespace", "production"),
    ];
    let relabel = Relabel::new(labels).unwrap();
    relabel.prefix("kata_shim_", ["go_", "process_"]).unwrap()
}

fn bodies(sources: usize) -> Vec<Bytes> {
    (0..sources)
        .map(|_| Bytes::from(RECORDED.as_bytes().to_vec()))
        .collect()
}

/// Reads pages as an exporter does that has seen such pages before.
fn pages(bodies: &[Bytes]) -> Vec<Page> {
    let reader = PageReader::default();
    let page = |(at, body): (usize, &Bytes)| reader.read(body.clone(), relabel(at)).unwrap();
    bodies.iter().enumerate().map(page).collect()
}

/// Writes the merged page chunk by chunk; its length.
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
fn index(bencher: Bencher, sources: usize) {
    let bodies = bodies(sources);
    let index = |(at, body): (usize, &Bytes)| Page::read(body.clone(), relabel(at)).unwrap();
    bencher
        .counter(BytesCount::new(sources * RECORDED.len()))
        .bench_local(|| bodies.iter().enumerate().map(index).collect::<Vec<_>>());
}

#[divan::bench(args = [1, 100, 1000])]
fn read(bencher: Bencher, sources: usize) {
    let bodies = bodies(sources);
    bencher
        .counter(BytesCount::new(sources * RECORDED.len()))
        .bench_local(|| pages(&bodies));
}

#[divan::bench(args = [1, 100, 1000])]
fn merge(bencher: Bencher, sources: usize) {
    let bodies = bodies(sources);
    let pages = pages(&bodies);
    let mut chunk = Vec::with_capacity(2 * CHUNK);
    bencher
        .counter(BytesCount::new(length(&bodies)))
        .bench_local(|| written(&pages, &mut chunk));
}

#[divan::bench(args = [1, 100, 1000])]
fn read_and_merge(bencher: Bencher, sources: usize) {
    let bodies = bodies(sources);
    let mut chunk = Vec::with_capacity(2 * CHUNK);
    bencher
        .counter(BytesCount::new(length(&bodies)))
        .bench_local(|| written(&pages(&bodies), &mut chunk));
}

/// Copies the finished page chunk by chunk.
#[divan::bench(args = [1, 100, 1000])]
fn copy(bencher: Bencher, sources: usize) {
    let page = Merge::new(pages(&bodies(sources)), &Filter::default()).into_bytes();
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
