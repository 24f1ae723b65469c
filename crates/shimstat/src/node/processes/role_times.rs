//! The times of a VMM's threads by their role, as counters. Threads that serve a device come and go, and a sum over those
//! that are there would fall.

use std::collections::BTreeMap;
use std::time::Duration;

use super::threads::{ThreadRole, ThreadTimes, Threads};

/// Run and wait time of threads, by their ids and starts.
type Spent = BTreeMap<(u32, u64), (Duration, Option<Duration>)>;

/// Counts what the threads of one VMM ran and waited, by role, from the first look on.
#[derive(Debug, Clone, Default)]
pub struct RoleTimes {
    /// At the last look.
    last: Option<Spent>,
    counted: BTreeMap<&'static str, ThreadTimes>,
}

impl RoleTimes {
    /// Counts what was used since the last look. Of each role that there ever was: its threads now, and what has been
    /// counted. A thread that is new since the last look counts from its start.
    pub fn count(&mut self, threads: &Threads) -> &BTreeMap<&'static str, ThreadTimes> {
        for times in self.counted.values_mut() {
            times.threads = 0;
        }
        let mut now = Spent::new();
        for thread in &threads.threads {
            let times = self
                .counted
                .entry(thread.role.label())
                .or_insert(ThreadTimes::ZERO);
            times.threads += 1;
            let key = (thread.tid, thread.started);
            let spent = (thread.run, thread.wait);
            if let Some(last) = &self.last {
                let (run, wait) = last
                    .get(&key)
                    .copied()
                    .unwrap_or((Duration::ZERO, Some(Duration::ZERO)));
                times.run = times.run.saturating_add(spent.0.saturating_sub(run));
                let waited = spent.1.zip(wait).map(|(now, before)| now.saturating_sub(before));
                times.wait = times.wait.zip(waited).map(|(sum, more)| sum.saturating_add(more));
            } else if spent.1.is_none() {
                times.wait = None;
            }
            now.insert(key, spent);
        }
        self.last = Some(now);
        &self.counted
    }
}

impl ThreadRole {
    /// One word for it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Vcpu(_) => "vcpu",
            Self::Io => "io",
            Self::Vhost => "vhost",
            Self::Main => "main",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::processes::Thread;

    fn thread(tid: u32, role: ThreadRole, run: u64, wait: Option<u64>) -> Thread {
        Thread {
            tid,
            name: String::new(),
            role,
            started: 7,
            run: Duration::from_millis(run),
            wait: wait.map(Duration::from_millis),
        }
    }

    /// Number, run and wait time in milliseconds of each role.
    fn look(times: &mut RoleTimes, threads: Vec<Thread>) -> Vec<(&'static str, usize, u128, Option<u128>)> {
        let counted = times.count(&Threads { threads, left_out: 0 });
        counted
            .iter()
            .map(|(role, times)| {
                let wait = times.wait.map(|wait| wait.as_millis());
                (*role, times.threads, times.run.as_millis(), wait)
            })
            .collect()
    }

    #[test]
    fn a_thread_that_ends_takes_nothing_with_it() {
        use ThreadRole::{Io, Vcpu};
        let mut times = RoleTimes::default();
        let first = vec![
            thread(1, Vcpu(Some(0)), 1000, Some(10)),
            thread(2, Io, 500, Some(5)),
        ];
        assert_eq!(
            look(&mut times, first),
            [("io", 1, 0, Some(0)), ("vcpu", 1, 0, Some(0))],
            "what was before the first look is not known to be in one reading"
        );
        let more = vec![
            thread(1, Vcpu(Some(0)), 1100, Some(30)),
            thread(2, Io, 520, Some(6)),
            thread(3, Io, 40, Some(4)),
        ];
        let counted = [("io", 2, 60, Some(5)), ("vcpu", 1, 100, Some(20))];
        assert_eq!(look(&mut times, more), counted, "a new one counts from its start");
        let fewer = vec![
            thread(1, Vcpu(Some(0)), 1100, Some(30)),
            thread(3, Io, 41, Some(4)),
        ];
        let counted = [("io", 1, 61, Some(5)), ("vcpu", 1, 100, Some(20))];
        assert_eq!(look(&mut times, fewer), counted);
        let none = vec![thread(1, Vcpu(Some(0)), 1100, Some(30))];
        assert_eq!(
            look(&mut times, none),
            [("io", 0, 61, Some(5)), ("vcpu", 1, 100, Some(20))]
        );
    }

    #[test]
    fn without_the_schedulers_figures_no_wait_time_is_counted() {
        let mut times = RoleTimes::default();
        let of = |run, wait| vec![thread(1, ThreadRole::Main, run, wait)];
        assert_eq!(look(&mut times, of(10, None)), [("main", 1, 0, None)]);
        assert_eq!(look(&mut times, of(30, None)), [("main", 1, 20, None)]);
    }
}
