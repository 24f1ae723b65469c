//! The model in the schema of `runc events` and Kata 1.x's `kata-runtime events`.
//!
//! Some keys are left out when their value is zero or was not reported, others are always there, and
//! 0 then; that is the schema, and the only place where an absent number becomes a zero. Numbers are
//! written out exactly. `serde_json`'s maps sort their keys, as Go does.

use serde_json::{Map, Number, Value};

use super::{
    Blkio, BlkioEntry, Cpu, Hugetlb, Interface, Memory, MemoryEntry, Pids, Pressure, Psi, Stats, TcpCounts,
    UdpCounts,
};

/// A `stats` event: `{"type":"stats","id":…,"data":…}`.
pub fn event(id: &str, stats: &Stats) -> Value {
    Object::default()
        .with("type", "stats")
        .with("id", id)
        .with("data", stats.to_json())
        .into()
}

impl Stats {
    /// The `data` of a `stats` event.
    pub fn to_json(&self) -> Value {
        let hugetlb: Map<String, Value> = self
            .hugetlb
            .iter()
            .map(|(pagesize, pages)| (pagesize.clone(), hugetlb(pages).into()))
            .collect();
        let interfaces: Vec<Value> = self
            .network
            .iter()
            .flatten()
            .map(|one| interface(one).into())
            .collect();
        let sockets = self.sockets.as_ref();
        let tcp = |table: Option<&TcpCounts>| table.map(tcp).unwrap_or_default();
        let udp = |table: Option<&UdpCounts>| table.map(udp).unwrap_or_default();
        Object::default()
            .with("cpu", cpu(&self.cpu))
            .with("memory", memory(&self.memory))
            .with("pids", pids(&self.pids))
            .with("blkio", blkio(&self.blkio))
            .with("hugetlb", hugetlb)
            // Neither type of reply carries it.
            .with("intel_rdt", Object::default())
            .with("interfaces", interfaces)
            .with("tcp", tcp(sockets.and_then(|sockets| sockets.tcp.as_ref())))
            .with("tcp6", tcp(sockets.and_then(|sockets| sockets.tcp6.as_ref())))
            .with("udp", udp(sockets.and_then(|sockets| sockets.udp.as_ref())))
            .with("udp6", udp(sockets.and_then(|sockets| sockets.udp6.as_ref())))
            .into()
    }
}

/// An object in the making.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// A key that is always there.
    fn always(self, key: &str, number: Option<u64>) -> Self {
        self.with(key, number.unwrap_or(0))
    }

    /// A key that is left out when zero.
    fn unless_zero(self, key: &str, number: impl Into<Option<u64>>) -> Self {
        match number.into() {
            None | Some(0) => self,
            Some(number) => self.with(key, number),
        }
    }

    fn unless_empty(self, key: &str, list: Vec<Value>) -> Self {
        if list.is_empty() {
            self
        } else {
            self.with(key, list)
        }
    }

    fn if_some(self, key: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        Value::Object(object.0)
    }
}

fn cpu(cpu: &Cpu) -> Object {
    let usage = Object::default()
        .unless_zero("total", cpu.usage.total)
        .unless_empty(
            "percpu",
            cpu.usage.percpu.iter().map(|time| Value::from(*time)).collect(),
        )
        .always("kernel", cpu.usage.kernel)
        .always("user", cpu.usage.user);
    let throttling = Object::default()
        .unless_zero("periods", cpu.throttling.periods)
        .unless_zero("throttledPeriods", cpu.throttling.throttled_periods)
        .unless_zero("throttledTime", cpu.throttling.throttled_time);
    Object::default()
        .with("usage", usage)
        .with("throttling", throttling)
        .if_some("psi", cpu.psi.as_ref().map(psi))
}

fn memory(memory: &Memory) -> Object {
    let raw = (!memory.raw.is_empty()).then(|| {
        let raw = memory
            .raw
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Value::from(*value)));
        Value::Object(raw.collect())
    });
    Object::default()
        .unless_zero("cache", memory.cache)
        .with("usage", memory_entry(&memory.usage))
        .with("swap", memory_entry(&memory.swap))
        .with("kernel", memory_entry(&memory.kernel))
        .with("kernelTCP", memory_entry(&memory.kernel_tcp))
        .if_some("raw", raw)
        .if_some("psi", memory.psi.as_ref().map(psi))
}

fn memory_entry(entry: &MemoryEntry) -> Object {
    Object::default()
        .always("limit", entry.limit)
        .unless_zero("usage", entry.usage)
        .unless_zero("max", entry.max)
        .always("failcnt", entry.failcnt)
}

fn pids(pids: &Pids) -> Object {
    Object::default()
        .unless_zero("current", pids.current)
        .unless_zero("limit", pids.limit)
}

fn blkio(blkio: &Blkio) -> Object {
    let lists = [
        ("ioServiceBytesRecursive", &blkio.io_service_bytes_recursive),
        ("ioServicedRecursive", &blkio.io_serviced_recursive),
        ("ioQueueRecursive", &blkio.io_queued_recursive),
        ("ioServiceTimeRecursive", &blkio.io_service_time_recursive),
        ("ioWaitTimeRecursive", &blkio.io_wait_time_recursive),
        ("ioMergedRecursive", &blkio.io_merged_recursive),
        ("ioTimeRecursive", &blkio.io_time_recursive),
        ("sectorsRecursive", &blkio.sectors_recursive),
    ];
    lists
        .into_iter()
        .fold(Object::default(), |object, (key, list)| {
            object.unless_empty(key, list.iter().map(|entry| blkio_entry(entry).into()).collect())
        })
        .if_some("psi", blkio.psi.as_ref().map(psi))
}

fn blkio_entry(entry: &BlkioEntry) -> Object {
    let op = (!entry.op.is_empty()).then_some(entry.op.as_str());
    Object::default()
        .unless_zero("major", entry.major)
        .unless_zero("minor", entry.minor)
        .if_some("op", op)
        .unless_zero("value", entry.value)
}

fn hugetlb(pages: &Hugetlb) -> Object {
    Object::default()
        .unless_zero("usage", pages.usage)
        .unless_zero("max", pages.max)
        .always("failcnt", pages.failcnt)
}

fn psi(psi: &Psi) -> Object {
    Object::default()
        .if_some("some", psi.some.as_ref().map(pressure))
        .if_some("full", psi.full.as_ref().map(pressure))
}

fn pressure(pressure: &Pressure) -> Object {
    Object::default()
        .if_some("avg10", float(pressure.avg10))
        .if_some("avg60", float(pressure.avg60))
        .if_some("avg300", float(pressure.avg300))
        .with("total", pressure.total)
}

/// As Go prints it: whole numbers without a fraction. What is no number has no form in JSON.
fn float(number: f64) -> Option<Number> {
    // The first float that is past every u64; below it the conversion of a whole number is exact.
    const PAST_U64: f64 = 18_446_744_073_709_551_616.0;
    if number.fract() == 0.0 && (0.0..PAST_U64).contains(&number) {
        return Some(Number::from(number as u64));
    }
    Number::from_f64(number)
}

fn interface(interface: &Interface) -> Object {
    Object::default()
        .with("name", interface.name.as_str())
        .with("rx_bytes", interface.rx_bytes)
        .with("rx_packets", interface.rx_packets)
        .with("rx_errors", interface.rx_errors)
        .with("rx_dropped", interface.rx_dropped)
        .with("tx_bytes", interface.tx_bytes)
        .with("tx_packets", interface.tx_packets)
        .with("tx_errors", interface.tx_errors)
        .with("tx_dropped", interface.tx_dropped)
}

fn tcp(counts: &TcpCounts) -> Object {
    Object::default()
        .unless_zero("established", counts.established)
        .unless_zero("syn_sent", counts.syn_sent)
        .unless_zero("syn_recv", counts.syn_recv)
        .unless_zero("fin_wait1", counts.fin_wait1)
        .unless_zero("fin_wait2", counts.fin_wait2)
        .unless_zero("time_wait", counts.time_wait)
        .unless_zero("close", counts.close)
        .unless_zero("close_wait", counts.close_wait)
        .unless_zero("last_ack", counts.last_ack)
        .unless_zero("listen", counts.listen)
        .unless_zero("closing", counts.closing)
}

fn udp(counts: &UdpCounts) -> Object {
    Object::default()
        .unless_zero("listen", counts.listen)
        .unless_zero("dropped", counts.dropped)
        .unless_zero("rx_queued", counts.rx_queued)
        .unless_zero("tx_queued", counts.tx_queued)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stats::Sockets;

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
            assert_eq!(
                float(number).map(|number| number.to_string()).as_deref(),
                Some(printed)
            );
        }
        for no_number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(float(no_number), None);
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
        assert_eq!(
            Value::from(super::pressure(&pressure)),
            json!({ "avg300": 1.5, "total": 2 })
        );
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
