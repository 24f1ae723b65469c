//! What comes from the guest and what from its shim, field by field.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::stats::GuestStats;
use crate::stats::{Hugetlb, MemoryEntry, Stats};

/// Whose number a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The shim's; the guest's where the shim has none.
    Shim,
    /// The guest's; the shim's where the guest has none.
    Guest,
    /// The shim's, never the guest's.
    ShimOnly,
}

/// What [`merge`] does with a field of [`Stats`], and why.
pub(crate) struct Row {
    /// The field's path in [`Stats`].
    pub field: &'static str,
    // These two make the table in docs/guest-numbers.md, which a test holds to this one.
    #[cfg_attr(not(test), allow(dead_code))]
    pub rule: Rule,
    #[cfg_attr(not(test), allow(dead_code))]
    pub why: &'static str,
    /// Whether something of the guest's was taken.
    apply: fn(&mut Stats, &GuestStats) -> bool,
}

/// Adds to a shim's statistics of a container what its guest's agent knows, by [`TABLE`], and gives back the fields with
/// numbers of the guest's.
///
/// Both come from the same files in the guest, read at two moments: a sum or a difference of two fields can be off by
/// what happened in between.
pub(crate) fn merge(shim: &mut Stats, guest: &GuestStats) -> Vec<&'static str> {
    let taken = TABLE.iter().filter(|row| (row.apply)(shim, guest));
    taken.map(|row| row.field).collect()
}

/// The decisions, in the order of [`Stats`]. `docs/guest-numbers.md` has their sources.
pub(crate) const TABLE: &[Row] = {
    macro_rules! row {
        ($rule:ident $first:ident$(.$rest:ident)*: $why:literal) => {
            Row {
                field: concat!(stringify!($first)$(, ".", stringify!($rest))*),
                rule: Rule::$rule,
                why: $why,
                apply: |merged, guest| {
                    merged.$first$(.$rest)*.combine(&guest.stats.$first$(.$rest)*, Rule::$rule)
                },
            }
        };
    }
    &[
        row!(Shim cpu.usage.total: "the same number"),
        row!(Guest cpu.usage.kernel: "the Go shim's cgroup v2 replies have it and `user` swapped"),
        row!(Guest cpu.usage.user: "the Go shim's cgroup v2 replies have it and `kernel` swapped"),
        row!(Shim cpu.usage.percpu: "the same numbers; cgroup v2 replies have no place for them"),
        row!(Shim cpu.throttling.periods: "the same number"),
        row!(Shim cpu.throttling.throttled_periods: "the same number"),
        row!(Shim cpu.throttling.throttled_time: "the same number"),
        row!(ShimOnly cpu.psi: "no agent sends it"),
        row!(Guest memory.cache: "part of `memory.stat`; in cgroup v1 replies it is 0 for a cgroup v2 guest"),
        row!(Shim memory.usage: "the same numbers; the Go shim's cgroup v2 replies lack the highest usage"),
        row!(Guest memory.swap: "in cgroup v1 replies it is swap alone for a cgroup v2 guest, not memory plus swap"),
        row!(Shim memory.kernel: "the same numbers"),
        row!(ShimOnly memory.kernel_tcp: "no agent sends it"),
        row!(Guest memory.raw: "the agent sends all of `memory.stat`, the shims pass on a part or nothing"),
        row!(Guest memory.total_cache: "part of `memory.stat`; in cgroup v1 replies it is 0 for a cgroup v2 guest"),
        row!(Guest memory.rss: "part of `memory.stat`; in cgroup v1 replies it is 0 for a cgroup v2 guest"),
        row!(Guest memory.mapped_file: "part of `memory.stat`; in cgroup v1 replies it is 0 for a cgroup v2 guest"),
        row!(Guest memory.inactive_file: "part of `memory.stat`; the Go shim's cgroup v1 replies lack that of a cgroup v2 guest, so that the working set is too high"),
        row!(Guest memory.pgfault: "part of `memory.stat`; the Rust shim looks for it under a wrong name"),
        row!(Guest memory.pgmajfault: "part of `memory.stat`; the Rust shim looks for it under a wrong name"),
        row!(ShimOnly memory.oom_kill: "no agent sends it"),
        row!(ShimOnly memory.psi: "no agent sends it"),
        row!(Shim pids.current: "the same number"),
        row!(Shim pids.limit: "the same number; no limit arrives as 0"),
        row!(Guest blkio: "the Go shim's cgroup v2 replies have one device alone, the last; the Rust shim passes on zeros that nobody measured"),
        row!(Shim hugetlb: "the same numbers; the Go shim's cgroup v2 replies lack `failcnt`"),
        row!(ShimOnly network: "the host's counters are not the guest's to tell, and no agent sends its own"),
        row!(ShimOnly sockets: "no agent sends it"),
    ]
};

/// A field that a shim and a guest may both know.
trait Combine {
    /// Whether something of the guest's was taken.
    fn combine(&mut self, guest: &Self, rule: Rule) -> bool;
}

impl<T: Clone> Combine for Option<T> {
    fn combine(&mut self, guest: &Self, rule: Rule) -> bool {
        let guests = match rule {
            Rule::Shim => self.is_none() && guest.is_some(),
            Rule::Guest => guest.is_some(),
            Rule::ShimOnly => false,
        };
        if guests {
            self.clone_from(guest);
        }
        guests
    }
}

/// A list is one statement, and `memory.stat` one reading.
macro_rules! as_a_whole {
    ($type:ty) => {
        impl Combine for $type {
            fn combine(&mut self, guest: &Self, rule: Rule) -> bool {
                let guests = match rule {
                    Rule::Shim => self.is_empty() && !guest.is_empty(),
                    Rule::Guest => !guest.is_empty(),
                    Rule::ShimOnly => false,
                };
                if guests {
                    self.clone_from(guest);
                }
                guests
            }
        }
    };
}
as_a_whole!(Vec<u64>);
as_a_whole!(BTreeMap<Cow<'static, str>, u64>);

/// Number by number from the shim, or all of them from the guest.
impl Combine for MemoryEntry {
    fn combine(&mut self, guest: &Self, rule: Rule) -> bool {
        match rule {
            Rule::Shim => {
                self.limit.combine(&guest.limit, rule)
                    | self.usage.combine(&guest.usage, rule)
                    | self.max.combine(&guest.max, rule)
                    | self.failcnt.combine(&guest.failcnt, rule)
            }
            Rule::Guest if guest.usage.is_some() => {
                self.clone_from(guest);
                true
            }
            Rule::Guest | Rule::ShimOnly => false,
        }
    }
}

impl Combine for BTreeMap<String, Hugetlb> {
    fn combine(&mut self, guest: &Self, rule: Rule) -> bool {
        guest.iter().fold(false, |taken, (page_size, pages)| {
            let merged = self.entry(page_size.clone()).or_default();
            taken
                | merged.usage.combine(&pages.usage, rule)
                | merged.max.combine(&pages.max, rule)
                | merged.failcnt.combine(&pages.failcnt, rule)
        })
    }
}

#[cfg(test)]
mod tests;
