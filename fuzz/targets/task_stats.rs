//! The statistics in a shim's reply, of both cgroup versions, to an event: JSON parses back to the same numbers.
#![no_main]

use fuzz::split;
use libfuzzer_sys::fuzz_target;
use shimstat::stats;

fuzz_target!(|data: &[u8]| {
    let (kind, value) = split(data);
    let type_url = match kind % 3 {
        0 => "io.containerd.cgroups.v1.Metrics",
        1 => "io.containerd.cgroups.v2.Metrics",
        _ => "type.googleapis.com/io.containerd.cgroups.v1.Metrics",
    };
    let Ok(stats) = stats::decode(type_url, value) else {
        return;
    };
    let event = stats::event("a", &stats);
    let text = event.to_string();
    let again: serde_json::Value = serde_json::from_str(&text).expect("an event is JSON");
    assert_eq!(again.to_string(), text);
    let total = again["data"]["cpu"]["usage"]["total"].as_u64();
    assert_eq!(
        total.unwrap_or_default(),
        stats.cpu.usage.total.unwrap_or_default()
    );
    let usage = again["data"]["memory"]["usage"]["usage"].as_u64();
    assert_eq!(
        usage.unwrap_or_default(),
        stats.memory.usage.usage.unwrap_or_default()
    );
});
