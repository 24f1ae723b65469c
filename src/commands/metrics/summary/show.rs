//! The summary as a table and as JSON.

use shimstat::node::hypervisor::KataShim;

use super::model::{Entry, Summary};
use crate::guest_side::GuestSide;
use crate::show::table::{Align, Table};
use crate::show::text::escape;
use crate::show::{json, units};

pub fn table(summary: &Summary) -> Vec<u8> {
    let mut columns = vec![("PART", Align::Left), ("CPU TIME", Align::Right)];
    if summary.rates {
        columns.push(("CPU", Align::Right));
    }
    columns.extend([
        ("MEMORY", Align::Right),
        ("OF", Align::Right),
        ("SOURCE", Align::Left),
    ]);
    let mut table = Table::new(columns);
    let groups = [
        ("", &summary.host),
        ("container ", &summary.containers),
        ("", &summary.overhead.clone().into_iter().collect()),
        ("", &summary.guest),
    ];
    for (kind, entries) in groups {
        for entry in entries {
            table.row(row(kind, entry, summary.rates));
        }
    }
    let mut text = format!("{}\n\n{}", escape(&title(summary)), table.lines());
    if let Some(vm) = &summary.vm {
        text += &vm.show(summary.rates);
    }
    if let Some(guest) = &summary.agent {
        text += &format!("guest: {}\n", escape(&about(guest)));
        for filesystem in &guest.filesystems {
            text += &format!("in the guest: {}\n", escape(&filesystem.show()));
        }
    }
    for line in &summary.missing {
        text += &format!("not known: {}\n", escape(line));
    }
    text.into_bytes()
}

/// `agent 4.1.0; eth0 10.88.0.5/16`.
fn about(guest: &GuestSide) -> String {
    let interfaces = guest.interfaces().map(|interface| format!("; {interface}"));
    format!("agent {}", guest.version) + &interfaces.collect::<String>()
}

fn title(summary: &Summary) -> String {
    let mut title = format!("sandbox {}", summary.sandbox);
    if let Some(pod) = &summary.pod {
        title += &format!(" ({pod})");
    }
    if let Some(hypervisor) = &summary.hypervisor {
        title += &format!(", on {hypervisor}");
    }
    match summary.shim {
        Some(KataShim::Go) => title + ", Kata's Go shim",
        Some(KataShim::Rust) => title + ", Kata's Rust shim",
        None => title,
    }
}

fn row(kind: &str, entry: &Entry, rates: bool) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_string());
    let mut cells = vec![
        format!("{kind}{}", entry.name),
        or_dash(entry.cpu.map(units::cpu_time)),
    ];
    if rates {
        cells.push(or_dash(entry.cpu_percent.map(units::percent)));
    }
    cells.extend([
        or_dash(entry.memory.map(units::bytes)),
        entry.of.map(units::bytes).unwrap_or_default(),
        entry.source.clone(),
    ]);
    cells
}

/// What was not measured is left out.
pub fn json(summary: &Summary) -> Vec<u8> {
    json::line(summary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest_side::{Filesystem, Interface, Usage};
    use serde_json::{Value, json};

    fn entry(name: &str, cpu: Option<f64>, memory: Option<u64>) -> Entry {
        Entry {
            name: name.into(),
            cpu,
            cpu_percent: None,
            memory,
            of: None,
            source: "Stats".into(),
        }
    }

    fn summary() -> Summary {
        Summary {
            agent: Some(GuestSide {
                version: "4.1.0".into(),
                memory: None,
                seccomp: Some(false),
                filesystems: vec![Filesystem {
                    bytes: Usage {
                        total: Some(100 << 20),
                        used: Some(40 << 20),
                        available: None,
                    },
                    device: Some("sda".into()),
                    mount: "/\x1b[1m".into(),
                    ..Filesystem::default()
                }],
                interfaces: Some(vec![
                    Interface {
                        name: "eth0".into(),
                        addresses: vec!["10.88.0.5/16".into(), "fe80::1/64".into()],
                        mtu: 1500,
                    },
                    Interface {
                        name: "\x1b[0m".into(),
                        addresses: Vec::new(),
                        mtu: 65_536,
                    },
                ]),
            }),
            sandbox: "s1".into(),
            pod: Some("shop/\x1b[31mweb".into()),
            shim: Some(KataShim::Go),
            hypervisor: Some("clh".into()),
            host: vec![entry("VMM", Some(5.53), Some(332_455_936))],
            containers: vec![entry("app", None, Some(1 << 20))],
            overhead: None,
            guest: Vec::new(),
            missing: vec!["shim: gone".into()],
            vm: None,
            rates: false,
        }
    }

    #[test]
    fn as_a_table() {
        let text = String::from_utf8(table(&summary())).unwrap();
        assert_eq!(
            text,
            "sandbox s1 (shop/\\u{1b}[31mweb), on clh, Kata's Go shim\n\n\
             PART           CPU TIME  MEMORY  OF  SOURCE\n\
             VMM               5.53s  317MiB      Stats\n\
             container app         -    1MiB      Stats\n\
             guest: agent 4.1.0; eth0 10.88.0.5/16 fe80::1/64; \\u{1b}[0m\n\
             in the guest: /\\u{1b}[1m (sda) 40MiB of 100MiB\n\
             not known: shim: gone\n"
        );
    }

    #[test]
    fn as_json_without_what_nobody_measured() {
        let value: Value = serde_json::from_slice(&json(&summary())).unwrap();
        assert_eq!(
            value,
            json!({
                "sandbox": "s1", "pod": "shop/\u{1b}[31mweb", "hypervisor": "clh", "shim": "go",
                "host": [{"name": "VMM", "cpu_seconds": 5.53, "memory_bytes": 332_455_936, "source": "Stats"}],
                "containers": [{"name": "app", "memory_bytes": 1_048_576, "source": "Stats"}],
                "agent": {"version": "4.1.0", "seccomp": false, "filesystems": [
                    {"mount": "/\u{1b}[1m", "device": "sda", "bytes": {"total": 104_857_600, "used": 41_943_040}},
                ], "interfaces": [
                    {"name": "eth0", "addresses": ["10.88.0.5/16", "fe80::1/64"], "mtu": 1500},
                    {"name": "\u{1b}[0m", "addresses": [], "mtu": 65_536},
                ]},
                "guest": [], "missing": ["shim: gone"],
            })
        );
    }
}
