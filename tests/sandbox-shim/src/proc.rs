//! Readers of `/proc`. What cannot be read is empty or `None`: a process may end at any time.

use std::{collections::BTreeMap, fs};

/// Clock ticks in a second as `/proc` counts them (USER_HZ): 100 on every architecture that containerd runs on.
pub const TICKS: f64 = 100.0;

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn of(pid: u32, file: &str) -> String {
    read(&format!("/proc/{pid}/{file}"))
}

/// `key: value` or `key value` lines: the first number of each, by the key in lower case.
fn table(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter_map(|line| {
        let (key, rest) = line.split_once([':', ' '])?;
        let value = rest.split_whitespace().next()?.parse().ok()?;
        Some((key.to_lowercase(), value))
    });
    lines.collect()
}

/// `/proc/<pid>/status`; memory in kB.
pub fn status(pid: u32) -> BTreeMap<String, f64> {
    table(&of(pid, "status"))
}

/// `/proc/<pid>/io`: bytes and calls.
pub fn io(pid: u32) -> BTreeMap<String, f64> {
    table(&of(pid, "io"))
}

/// `/proc/vmstat`: pages and events.
pub fn vmstat() -> BTreeMap<String, f64> {
    table(&read("/proc/vmstat"))
}

/// `/proc/meminfo`: kB, except the counts of huge pages.
pub fn meminfo() -> BTreeMap<String, f64> {
    table(&read("/proc/meminfo"))
}

/// `/proc/<pid>/stat` from its third field on: what comes before may hold blanks.
fn stat_fields(pid: u32) -> Vec<f64> {
    let text = of(pid, "stat");
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace()
        .map(|field| field.parse().unwrap_or(0.0))
        .collect()
}

/// A field of `/proc/<pid>/stat` by its number in proc(5), where the first is 1.
fn stat_field(pid: u32, number: usize) -> Option<f64> {
    stat_fields(pid).get(number.checked_sub(3)?).copied()
}

/// CPU times in clock ticks: own user and system time, and those of children waited for.
pub fn times(pid: u32) -> Option<[(&'static str, f64); 4]> {
    let field = |number| stat_field(pid, number);
    Some([
        ("cstime", field(17)?),
        ("cutime", field(16)?),
        ("stime", field(15)?),
        ("utime", field(14)?),
    ])
}

/// User and system time in seconds.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    Some((stat_field(pid, 14)? + stat_field(pid, 15)?) / TICKS)
}

/// When the process started, in seconds since 1970.
pub fn start_time(pid: u32) -> Option<f64> {
    let booted = *table(&read("/proc/stat")).get("btime")?;
    Some(booted + stat_field(pid, 22)? / TICKS)
}

/// How many files the process has open.
pub fn open_files(pid: u32) -> Option<f64> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as f64)
}

/// A soft limit by its name in `/proc/<pid>/limits`; unlimited is 2^64-1, as Prometheus's Go client has it.
pub fn limit(pid: u32, name: &str) -> Option<f64> {
    let text = of(pid, "limits");
    let soft = text
        .lines()
        .find_map(|line| line.strip_prefix(name))?
        .split_whitespace()
        .next()?
        .to_owned();
    if soft == "unlimited" {
        Some(u64::MAX as f64)
    } else {
        soft.parse().ok()
    }
}

/// Octets received and sent over IP in the process's network namespace.
pub fn ip_octets(pid: u32) -> Option<(f64, f64)> {
    let text = of(pid, "net/netstat");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let get = |wanted: &str| {
        let found = names
            .split(' ')
            .zip(values.split(' '))
            .find(|(name, _)| *name == wanted);
        found.and_then(|(_, value)| value.parse().ok())
    };
    Some((get("InOctets")?, get("OutOctets")?))
}

/// The columns of `/proc/<pid>/net/dev`, in the kernel's order.
#[rustfmt::skip]
const NETDEV: [&str; 16] = [
    "recv_bytes", "recv_packets", "recv_errs", "recv_drop", "recv_fifo", "recv_frame", "recv_compressed",
    "recv_multicast", "sent_bytes", "sent_packets", "sent_errs", "sent_drop", "sent_fifo", "sent_colls",
    "sent_carrier", "sent_compressed",
];

/// Interface → column → count, in the process's network namespace.
pub fn netdev(pid: u32) -> BTreeMap<String, BTreeMap<&'static str, f64>> {
    parse_netdev(&of(pid, "net/dev"))
}

fn parse_netdev(text: &str) -> BTreeMap<String, BTreeMap<&'static str, f64>> {
    let interfaces = text.lines().skip(2).filter_map(|line| {
        let (name, counts) = line.split_once(':')?;
        let counts = counts.split_whitespace().map(|n| n.parse().unwrap_or(0.0));
        Some((name.trim().to_owned(), NETDEV.into_iter().zip(counts).collect()))
    });
    interfaces.collect()
}

/// The columns of `/proc/diskstats` after the device's name, in the kernel's order.
#[rustfmt::skip]
const DISK: [&str; 17] = [
    "reads", "merged", "sectors_read", "time_reading", "writes", "writes_merged", "sectors_written",
    "time_writing", "in_progress", "time_in_progress", "weighted_time_in_progress", "discards",
    "discards_merged", "sectors_discarded", "time_discarding", "flushes", "time_flushing",
];

/// Disk → column → count, for the disks that were used at all.
pub fn disks() -> BTreeMap<String, BTreeMap<&'static str, f64>> {
    let text = read("/proc/diskstats");
    let disks = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(2);
        let name = words.next()?.to_owned();
        let counts: BTreeMap<_, _> = DISK
            .into_iter()
            .zip(words.map(|n| n.parse().unwrap_or(0.0)))
            .collect();
        counts
            .values()
            .any(|count| *count > 0.0)
            .then_some((name, counts))
    });
    disks.collect()
}

/// The columns of the `cpu` lines of `/proc/stat`, in the kernel's order.
#[rustfmt::skip]
const CPU: [&str; 10] = [
    "user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice",
];

/// CPU (`total`, `0`, `1`, …) → state → milliseconds.
pub fn cpu_times() -> BTreeMap<String, BTreeMap<&'static str, f64>> {
    parse_cpu_times(&read("/proc/stat"))
}

fn parse_cpu_times(text: &str) -> BTreeMap<String, BTreeMap<&'static str, f64>> {
    let cpus = text.lines().filter_map(|line| {
        let (number, counts) = line.strip_prefix("cpu")?.split_once(' ')?;
        let name = if number.is_empty() { "total" } else { number };
        let counts = counts
            .split_whitespace()
            .map(|n| n.parse().unwrap_or(0.0) * 1000.0 / TICKS);
        Some((name.to_owned(), CPU.into_iter().zip(counts).collect()))
    });
    cpus.collect()
}

/// The three load averages, and how many tasks run and exist.
pub fn load() -> Option<([f64; 3], [f64; 2])> {
    let text = read("/proc/loadavg");
    let mut words = text.split_whitespace();
    let mut average = || words.next()?.parse().ok();
    let averages = [average()?, average()?, average()?];
    let (running, all) = words.next()?.split_once('/')?;
    Some((averages, [running.parse().ok()?, all.parse().ok()?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_lines_that_the_kernel_writes() {
        let text = "Inter-|   Receive                        |  Transmit\n face |bytes packets …\n  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
        let interfaces = parse_netdev(text);
        let eth0 = interfaces.get("eth0").unwrap();
        assert_eq!((eth0["recv_bytes"], eth0["recv_multicast"]), (1.0, 8.0));
        assert_eq!(
            (eth0["sent_bytes"], eth0["sent_packets"], eth0["sent_compressed"]),
            (9.0, 10.0, 16.0)
        );

        // The kernel writes two blanks after `cpu`, one after `cpu0`; ticks are hundredths of a second.
        let cpus =
            parse_cpu_times("cpu  152 0 532 8078 1 0 22 0 0 0\ncpu0 152 0 532 8078 1 0 22 0 0 0\nintr 7\n");
        assert_eq!(cpus.len(), 2);
        assert_eq!((cpus["total"]["user"], cpus["0"]["idle"]), (1520.0, 80780.0));

        let status = table("Name:\tsleep\nVmRSS:\t    1024 kB\nvoluntary_ctxt_switches:\t7\n");
        assert_eq!(status.len(), 2);
        assert_eq!(
            (status["vmrss"], status["voluntary_ctxt_switches"]),
            (1024.0, 7.0)
        );
    }

    #[test]
    fn knows_this_process() {
        let me = std::process::id();
        assert!(open_files(me).unwrap() >= 3.0);
        assert!(status(me)["vmrss"] > 100.0);
        let age = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64()
            - start_time(me).unwrap();
        assert!((-2.0..3600.0).contains(&age), "{age}");
    }
}
