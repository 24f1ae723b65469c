//! From two samples of a container to what it used in between.

use crate::stats::{Interface, Stats};
use crate::survey::Sample;

/// What a container used between two samples, per second unless a field says otherwise.
///
/// `None` is "cannot be told": the runtime does not report it, or a counter went backwards, as it does when a
/// task is started anew. Such a step is no rate, and a part that appeared in between has none yet either.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Processor time, in per cent of one processor: 100 is one of them kept busy.
    pub cpu_percent: Option<f64>,
    /// The share of the enforcement periods in which a quota held the container back, 0 to 1. `None` also
    /// where there is no quota.
    pub throttled: Option<f64>,
    /// Bytes received on all interfaces but the loopback, and those by which Kata joins a pod's interface to
    /// its guest. A pod's containers share its interfaces.
    pub rx_bytes: Option<f64>,
    /// Bytes sent on the same interfaces.
    pub tx_bytes: Option<f64>,
    /// Bytes read from block devices.
    pub read_bytes: Option<f64>,
    /// Bytes written to block devices.
    pub write_bytes: Option<f64>,
    /// Processes killed for want of memory: how many in between, not per second.
    pub oom_kills: Option<u64>,
}

impl Rates {
    /// The rates between two samples of the same container; those of two tasks have none. The time is the one
    /// at which the statistics arrived.
    pub fn between(before: &Sample, after: &Sample) -> Self {
        let seconds = after.taken.saturating_duration_since(before.taken).as_secs_f64();
        if seconds <= 0.0 || before.state.pid != after.state.pid {
            return Self::default();
        }
        let (old, new) = (&before.stats, &after.stats);
        let per_second = |step: Option<u64>| Some(step? as f64 / seconds);
        Self {
            cpu_percent: per_second(rise(old.cpu.usage.total, new.cpu.usage.total)).map(|nanos| nanos / 1e7),
            throttled: throttled(old, new),
            rx_bytes: per_second(network(old, new, |interface| interface.rx_bytes)),
            tx_bytes: per_second(network(old, new, |interface| interface.tx_bytes)),
            read_bytes: per_second(block(old, new, Direction::Read)),
            write_bytes: per_second(block(old, new, Direction::Write)),
            oom_kills: rise(old.memory.oom_kill, new.memory.oom_kill),
        }
    }
}

/// How far a counter rose; `None` where it fell.
fn rise(old: Option<u64>, new: Option<u64>) -> Option<u64> {
    new?.checked_sub(old?)
}

fn throttled(old: &Stats, new: &Stats) -> Option<f64> {
    let (old, new) = (&old.cpu.throttling, &new.cpu.throttling);
    // The kernel counts periods for as long as there is a quota, and only then.
    new.periods.filter(|periods| *periods > 0)?;
    let periods = rise(old.periods, new.periods)?;
    let throttled = rise(old.throttled_periods, new.throttled_periods)?;
    if periods == 0 {
        // It was idle: nothing to hold back.
        return Some(0.0);
    }
    Some((throttled as f64 / periods as f64).min(1.0))
}

fn network(old: &Stats, new: &Stats, counter: impl Fn(&Interface) -> u64) -> Option<u64> {
    let (old, new) = (old.network.as_ref()?, new.network.as_ref()?);
    let mut sum: u64 = 0;
    for interface in new.iter().filter(|interface| carries(&interface.name)) {
        if let Some(before) = old.iter().find(|before| before.name == interface.name) {
            sum = sum.saturating_add(counter(interface).checked_sub(counter(before))?);
        }
    }
    Some(sum)
}

/// Whether what an interface carries is the pod's traffic, and not counted elsewhere. Kata joins the pod's
/// interface to the guest's by `tap<n>_kata` (or `br<n>_kata`): each packet passes both, the other way round.
fn carries(interface: &str) -> bool {
    interface != "lo"
        && !(interface.ends_with("_kata") && (interface.starts_with("tap") || interface.starts_with("br")))
}

#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write,
}

/// The step of all devices that both samples have. One that is new is left out, though its counter may be new
/// as well: Kata's Go shim names one device for all, and not always the same one.
fn block(old: &Stats, new: &Stats, direction: Direction) -> Option<u64> {
    let before = old.blkio.devices();
    let mut sum: Option<u64> = None;
    for (device, io) in new.blkio.devices() {
        let Some(before) = before.get(&device) else {
            continue;
        };
        let (old, new) = match direction {
            Direction::Read => (before.read_bytes, io.read_bytes),
            Direction::Write => (before.write_bytes, io.write_bytes),
        };
        if old.is_some() && new.is_some() {
            sum = Some(sum.unwrap_or(0).saturating_add(rise(old, new)?));
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::task::{TaskState, TaskStatus};
    use crate::stats::BlkioEntry;
    use std::time::{Duration, Instant};

    fn sample(taken: Instant, change: impl FnOnce(&mut Stats)) -> Sample {
        let mut stats = Stats::default();
        change(&mut stats);
        Sample {
            state: TaskState {
                status: TaskStatus::Running,
                pid: 7,
                exit_status: 0,
                exited_at: None,
            },
            stats,
            taken,
        }
    }

    /// The rates of two samples that are two seconds apart.
    fn rates(old: impl FnOnce(&mut Stats), new: impl FnOnce(&mut Stats)) -> Rates {
        let start = Instant::now();
        Rates::between(&sample(start, old), &sample(start + Duration::from_secs(2), new))
    }

    fn interface(name: &str, rx_bytes: u64, tx_bytes: u64) -> Interface {
        Interface {
            name: name.into(),
            rx_bytes,
            tx_bytes,
            ..Interface::default()
        }
    }

    fn entry(minor: u64, op: &str, value: u64) -> BlkioEntry {
        BlkioEntry {
            major: 8,
            minor,
            op: op.into(),
            value,
        }
    }

    #[test]
    fn a_second_of_processor_time_a_second_is_a_hundred_per_cent() {
        let used = |nanos| move |stats: &mut Stats| stats.cpu.usage.total = Some(nanos);
        // A second of work in two: half a processor. Six in two: three processors.
        assert_eq!(
            rates(used(5_000_000_000), used(6_000_000_000)).cpu_percent,
            Some(50.0)
        );
        assert_eq!(rates(used(1), used(6_000_000_001)).cpu_percent, Some(300.0));
        assert_eq!(rates(used(7), used(7)).cpu_percent, Some(0.0), "idle is measured");
        assert_eq!(rates(used(8), used(7)).cpu_percent, None, "it was started anew");
        assert_eq!(rates(|_| (), used(7)).cpu_percent, None);
        assert_eq!(rates(used(7), |_| ()).cpu_percent, None);
    }

    #[test]
    fn throttling_is_a_share_of_the_periods() {
        let counts = |periods, throttled| {
            move |stats: &mut Stats| {
                stats.cpu.throttling.periods = Some(periods);
                stats.cpu.throttling.throttled_periods = Some(throttled);
            }
        };
        assert_eq!(rates(counts(100, 10), counts(120, 15)).throttled, Some(0.25));
        assert_eq!(rates(counts(100, 10), counts(100, 10)).throttled, Some(0.0));
        assert_eq!(rates(counts(0, 0), counts(0, 0)).throttled, None, "no quota");
        assert_eq!(rates(counts(100, 10), counts(20, 5)).throttled, None);
        assert_eq!(rates(|_| (), |_| ()).throttled, None);
    }

    #[test]
    fn the_network_is_what_all_interfaces_but_the_loopback_carried() {
        let carried = |interfaces: Vec<Interface>| move |stats: &mut Stats| stats.network = Some(interfaces);
        let both = rates(
            carried(vec![
                interface("lo", 0, 0),
                interface("eth0", 100, 50),
                interface("eth1", 10, 0),
                interface("tap0_kata", 50, 100),
            ]),
            carried(vec![
                interface("lo", 9999, 9999),
                interface("eth0", 2100, 150),
                interface("eth1", 30, 0),
                interface("new", 5555, 5555),
                interface("tap0_kata", 150, 2100),
            ]),
        );
        assert_eq!((both.rx_bytes, both.tx_bytes), (Some(1010.0), Some(50.0)));
        let anew = rates(
            carried(vec![interface("eth0", 100, 50)]),
            carried(vec![interface("eth0", 20, 60)]),
        );
        assert_eq!((anew.rx_bytes, anew.tx_bytes), (None, Some(5.0)));
        assert_eq!(rates(|_| (), carried(vec![])).rx_bytes, None);
    }

    #[test]
    fn block_devices_are_compared_each_with_itself() {
        let moved = |entries: Vec<BlkioEntry>| {
            move |stats: &mut Stats| stats.blkio.io_service_bytes_recursive = entries
        };
        let both = rates(
            moved(vec![
                entry(0, "Read", 0),
                entry(0, "Write", 1000),
                entry(16, "Read", 10),
            ]),
            moved(vec![
                entry(0, "Read", 4096),
                entry(0, "Write", 1000),
                entry(16, "Read", 14),
                entry(32, "Read", 1 << 40),
            ]),
        );
        assert_eq!(
            (both.read_bytes, both.write_bytes),
            (Some(2050.0), Some(0.0)),
            "the new device has no rate yet"
        );
        let other_device = rates(
            moved(vec![entry(0, "Read", 5)]),
            moved(vec![entry(16, "Read", 1 << 40)]),
        );
        assert_eq!(other_device.read_bytes, None);
        assert_eq!(rates(|_| (), moved(vec![entry(0, "Read", 5)])).read_bytes, None);
        assert_eq!(
            rates(moved(vec![entry(0, "Read", 5)]), moved(vec![entry(0, "Read", 4)])).read_bytes,
            None
        );
    }

    #[test]
    fn oom_kills_are_counted() {
        let killed = |kills| move |stats: &mut Stats| stats.memory.oom_kill = kills;
        assert_eq!(rates(killed(Some(1)), killed(Some(4))).oom_kills, Some(3));
        assert_eq!(rates(killed(Some(4)), killed(Some(0))).oom_kills, None);
        assert_eq!(rates(killed(None), killed(Some(4))).oom_kills, None);
    }

    #[test]
    fn another_task_or_no_time_gives_no_rates() {
        let start = Instant::now();
        let busy = |nanos| move |stats: &mut Stats| stats.cpu.usage.total = Some(nanos);
        let (old, new) = (sample(start, busy(1)), sample(start, busy(2)));
        assert_eq!(Rates::between(&old, &new), Rates::default(), "no time in between");
        let mut other = sample(start + Duration::from_secs(1), busy(2));
        assert_eq!(
            Rates::between(&other, &old),
            Rates::default(),
            "the wrong way round"
        );
        other.state.pid = 8;
        assert_eq!(Rates::between(&old, &other), Rates::default(), "another task");
    }
}
