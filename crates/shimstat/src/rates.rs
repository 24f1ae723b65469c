//! From two samples of a container to what it used in between.

use crate::stats::{DeviceIo, Interface, Stats};
use crate::survey::Sample;

/// What a container used between two samples, per second unless a field says otherwise.
///
/// `None` means that it is not known: the runtime does not report it, or a counter went backwards, as it does
/// when a task is restarted.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// CPU time, in per cent of one CPU: 100 is one CPU kept busy.
    pub cpu_percent: Option<f64>,
    /// The share of the enforcement periods in which a quota held the container back, 0 to 1. `None` also
    /// without a quota.
    pub throttled: Option<f64>,
    /// Bytes received on the pod's own links ([`Interface::is_pods_own`]), which its containers share.
    pub rx_bytes: Option<f64>,
    /// Bytes sent on the same links.
    pub tx_bytes: Option<f64>,
    /// Bytes read from block devices. A device that is new since the earlier sample counts from zero.
    pub read_bytes: Option<f64>,
    /// Bytes written to block devices, counted in the same way.
    pub write_bytes: Option<f64>,
    /// Processes that were OOM-killed between the samples: a number, not per second.
    pub oom_kills: Option<u64>,
}

impl Rates {
    /// The rates between two samples of the same task; samples of two tasks have none. The time is the one at
    /// which the statistics arrived.
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

/// By how much a counter rose; `None` where it fell.
fn rise(old: Option<u64>, new: Option<u64>) -> Option<u64> {
    new?.checked_sub(old?)
}

fn throttled(old: &Stats, new: &Stats) -> Option<f64> {
    // A quota that was set between the samples counts from zero.
    let none_yet = old.cpu.usage.total.map(|_| 0);
    let (old, new) = (&old.cpu.throttling, &new.cpu.throttling);
    let periods = rise(old.periods.or(none_yet), new.periods)?;
    let throttled = rise(old.throttled_periods.or(none_yet), new.throttled_periods)?;
    if periods == 0 {
        // It was idle, and nothing was held back.
        return Some(0.0);
    }
    Some((throttled as f64 / periods as f64).min(1.0))
}

fn network(old: &Stats, new: &Stats, counter: impl Fn(&Interface) -> u64) -> Option<u64> {
    let (old, new) = (old.network.as_ref()?, new.network.as_ref()?);
    let mut sum: u64 = 0;
    for interface in new.iter().filter(|interface| interface.is_pods_own()) {
        if let Some(before) = old.iter().find(|before| before.name == interface.name) {
            sum = sum.saturating_add(counter(interface).checked_sub(counter(before))?);
        }
    }
    Some(sum)
}

#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write,
}

/// The step of all devices together. A new device counts from zero, but not where another one is gone: Kata's Go
/// shim sends one entry for all devices, under the numbers of any of them.
fn block(old: &Stats, new: &Stats, direction: Direction) -> Option<u64> {
    let (before, after) = (old.blkio.as_ref()?.devices(), new.blkio.as_ref()?.devices());
    let none_is_gone = before.keys().all(|device| after.contains_key(device));
    let bytes = |io: &DeviceIo| match direction {
        Direction::Read => io.read_bytes,
        Direction::Write => io.write_bytes,
    };
    let mut sum: Option<u64> = None;
    for (device, io) in &after {
        let old = match before.get(device) {
            Some(before) => bytes(before),
            None => none_is_gone.then_some(0),
        };
        let new = bytes(io);
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
    use crate::stats::{Blkio, BlkioEntry};
    use crate::survey::Origin;
    use std::time::{Duration, Instant};

    fn sample(taken: Instant, change: impl FnOnce(&mut Stats)) -> Sample {
        let mut stats = Stats::default();
        change(&mut stats);
        Sample {
            state: TaskState {
                status: TaskStatus::Running,
                pid: 7,
                exit_status: None,
                exited_at: None,
            },
            stats,
            taken,
            origin: Origin::Shim,
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
        assert_eq!(rates(used(8), used(7)).cpu_percent, None, "it was restarted");
        assert_eq!(rates(|_| (), used(7)).cpu_percent, None);
        assert_eq!(rates(used(7), |_| ()).cpu_percent, None);
    }

    #[test]
    fn throttling_is_a_share_of_the_periods() {
        let counts = |periods, throttled| {
            move |stats: &mut Stats| {
                stats.cpu.usage.total = Some(1);
                stats.cpu.throttling.periods = periods;
                stats.cpu.throttling.throttled_periods = throttled;
            }
        };
        let share = |old: (u64, u64), new: (u64, u64)| {
            rates(counts(Some(old.0), Some(old.1)), counts(Some(new.0), Some(new.1))).throttled
        };
        assert_eq!(share((100, 10), (120, 15)), Some(0.25));
        assert_eq!(share((100, 10), (100, 10)), Some(0.0));
        assert_eq!(share((100, 10), (20, 5)), None);
        let unlimited = || counts(None, None);
        assert_eq!(rates(unlimited(), unlimited()).throttled, None, "no quota");
        assert_eq!(
            rates(unlimited(), counts(Some(8), Some(2))).throttled,
            Some(0.25),
            "a quota that is new"
        );
        assert_eq!(rates(|_| (), counts(Some(8), Some(2))).throttled, None);
        assert_eq!(rates(|_| (), |_| ()).throttled, None);
    }

    #[test]
    fn the_network_is_what_the_pods_own_links_carried() {
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
            move |stats: &mut Stats| {
                stats.blkio = Some(Blkio {
                    io_service_bytes_recursive: entries,
                    ..Blkio::default()
                });
            }
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
            ]),
        );
        assert_eq!((both.read_bytes, both.write_bytes), (Some(2050.0), Some(0.0)));
        let fell = rates(moved(vec![entry(0, "Read", 5)]), moved(vec![entry(0, "Read", 4)]));
        assert_eq!(fell.read_bytes, None);

        // The kernel lists a device from its first operation on.
        let first = rates(
            moved(vec![]),
            moved(vec![entry(0, "Read", 4096), entry(0, "Write", 0)]),
        );
        assert_eq!((first.read_bytes, first.write_bytes), (Some(2048.0), Some(0.0)));
        let second = rates(
            moved(vec![entry(0, "Read", 10)]),
            moved(vec![entry(0, "Read", 20), entry(16, "Read", 30)]),
        );
        assert_eq!(second.read_bytes, Some(20.0));

        let renamed = rates(
            moved(vec![entry(0, "Read", 5)]),
            moved(vec![entry(16, "Read", 1 << 40)]),
        );
        assert_eq!(renamed.read_bytes, None, "a device is gone: which is which?");
        let one_left = rates(
            moved(vec![entry(0, "Read", 5), entry(16, "Read", 5)]),
            moved(vec![entry(16, "Read", 7), entry(32, "Read", 1 << 40)]),
        );
        assert_eq!(one_left.read_bytes, Some(1.0));
        assert_eq!(
            rates(|_| (), moved(vec![entry(0, "Read", 5)])).read_bytes,
            None,
            "the earlier sample says nothing of devices"
        );
        assert_eq!(rates(moved(vec![]), moved(vec![])).read_bytes, None);
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
