//! The model in the schema of `runc events` and Kata 1.x's `kata-runtime events`.
//!
//! Some keys are left out when their value is zero or was not reported, others are always there and then 0. That
//! is the schema, and the only place where a number that was not reported becomes a zero. `serde_json`'s maps
//! sort their keys, as Go does.

use serde_json::{Value, json};

use super::model::{Blkio, Stats};

/// A `stats` event: `{"type":"stats","id":…,"data":…}`.
pub fn event(id: &str, stats: &Stats) -> Value {
    json!({ "type": "stats", "id": id, "data": stats.to_json() })
}

impl Stats {
    /// The `data` of a `stats` event.
    pub fn to_json(&self) -> Value {
        let no_devices = Blkio::default();
        let sockets = self.sockets.clone().unwrap_or_default();
        json!({
            "cpu": self.cpu,
            "memory": self.memory,
            "pids": self.pids,
            "blkio": self.blkio.as_ref().unwrap_or(&no_devices),
            "hugetlb": self.hugetlb,
            // Neither type of reply carries it.
            "intel_rdt": {},
            "interfaces": self.network.as_deref().unwrap_or_default(),
            "tcp": sockets.tcp.unwrap_or_default(),
            "tcp6": sockets.tcp6.unwrap_or_default(),
            "udp": sockets.udp.unwrap_or_default(),
            "udp6": sockets.udp6.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stats::{Interface, Memory, MemoryEntry, Pressure, Sockets, TcpCounts, UdpCounts};

    #[test]
    fn floats_look_as_go_prints_them() {
        for (number, printed) in [
            (0.0, "0"),
            (1.0, "1"),
            (100.0, "100"),
            (0.05, "0.05"),
            (19.19, "19.19"),
            (0.1 + 0.2, "0.30000000000000004"),
            (9_007_199_254_740_992.0, "9007199254740992"),
        ] {
            let pressure = Pressure {
                avg10: number,
                ..Pressure::default()
            };
            assert_eq!(json!(pressure)["avg10"].to_string(), printed);
        }
    }

    #[test]
    fn a_pressure_that_is_no_number_is_left_out() {
        let pressure = Pressure {
            avg10: f64::NAN,
            avg60: f64::INFINITY,
            avg300: 1.5,
            total: 2,
        };
        assert_eq!(json!(pressure), json!({ "avg300": 1.5, "total": 2 }));
    }

    #[test]
    fn sockets_field_by_field() {
        let tcp = |n: u64| TcpCounts {
            established: n,
            syn_sent: n + 1,
            syn_recv: n + 2,
            fin_wait1: n + 3,
            fin_wait2: n + 4,
            time_wait: n + 5,
            close: n + 6,
            close_wait: n + 7,
            last_ack: n + 8,
            listen: n + 9,
            closing: n + 10,
        };
        let udp = |n: u64| UdpCounts {
            listen: n,
            dropped: n + 1,
            rx_queued: n + 2,
            tx_queued: n + 3,
        };
        let sockets = Sockets {
            tcp: Some(tcp(10)),
            tcp6: Some(tcp(30)),
            udp: Some(udp(50)),
            udp6: Some(udp(60)),
        };
        let data = Stats {
            sockets: Some(sockets),
            ..Stats::default()
        }
        .to_json();
        assert_eq!(
            data["tcp"],
            json!({
                "established": 10, "syn_sent": 11, "syn_recv": 12, "fin_wait1": 13, "fin_wait2": 14,
                "time_wait": 15, "close": 16, "close_wait": 17, "last_ack": 18, "listen": 19, "closing": 20,
            })
        );
        assert_eq!(
            (&data["tcp6"]["established"], &data["tcp6"]["closing"]),
            (&json!(30), &json!(40))
        );
        assert_eq!(
            data["udp"],
            json!({ "listen": 50, "dropped": 51, "rx_queued": 52, "tx_queued": 53 })
        );
        assert_eq!(
            data["udp6"],
            json!({ "listen": 60, "dropped": 61, "rx_queued": 62, "tx_queued": 63 })
        );
    }

    #[test]
    fn sockets_leave_out_zeros_and_tables_that_were_not_read() {
        let tcp = TcpCounts {
            listen: 1,
            ..TcpCounts::default()
        };
        let sockets = Sockets {
            tcp: Some(tcp),
            tcp6: None,
            udp: Some(UdpCounts::default()),
            udp6: None,
        };
        let data = Stats {
            sockets: Some(sockets),
            ..Stats::default()
        }
        .to_json();
        assert_eq!(data["tcp"], json!({ "listen": 1 }));
        for empty in ["tcp6", "udp", "udp6"] {
            assert_eq!(data[empty], json!({}), "{empty}");
        }
    }

    #[test]
    fn the_largest_numbers_are_exact() {
        let memory = Memory {
            usage: MemoryEntry {
                limit: Some(u64::MAX),
                usage: Some(u64::MAX - 1),
                ..MemoryEntry::default()
            },
            ..Memory::default()
        };
        let text = Stats {
            memory,
            ..Stats::default()
        }
        .to_json()["memory"]["usage"]
            .to_string();
        assert_eq!(
            text,
            r#"{"failcnt":0,"limit":18446744073709551615,"usage":18446744073709551614}"#
        );
    }

    #[test]
    fn names_from_outside_are_escaped() {
        let interface = Interface {
            name: "e\u{1b}[2J\"\n".into(),
            ..Interface::default()
        };
        let text = Stats {
            network: Some(vec![interface]),
            ..Stats::default()
        }
        .to_json()
        .to_string();
        assert!(text.contains(r#""name":"e\u001b[2J\"\n""#), "{text}");
    }
}
