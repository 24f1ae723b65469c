//! Which families are served, and what has to be asked for them.

use promtext::Filter;
use shimstat::node::processes::VmParts;

use super::container_metrics;
use super::pod::Wish;
use crate::cli::Profile;

/// The lean profile: at most 60 series of a sandbox with two containers. docs/exporter-costs.md says why each is in it.
const LEAN: &str = "container_cpu_cfs_periods_total,\
    container_cpu_cfs_throttled_periods_total,\
    container_cpu_usage_seconds_total,\
    container_memory_working_set_bytes,\
    container_network_receive_bytes_total,\
    container_network_transmit_bytes_total,\
    container_oom_events_total,\
    container_spec_memory_limit_bytes,\
    container_start_time_seconds,\
    kata_monitor_build_info,\
    kata_monitor_container_failure,\
    kata_monitor_container_up,\
    kata_monitor_host_pids_visible,\
    kata_monitor_host_processes_readable,\
    kata_monitor_process_cpu_seconds_total,\
    kata_monitor_process_resident_memory_bytes,\
    kata_monitor_sandbox_failure,\
    kata_monitor_sandbox_up,\
    kata_monitor_scrape_failed_count,\
    kata_sandbox_configured_memory_bytes,\
    kata_sandbox_info,\
    kata_sandbox_memory_bytes,\
    kata_sandbox_network_dropped_packets_total,\
    kata_sandbox_overhead_,\
    kata_sandbox_thread_run_seconds_total,\
    kata_sandbox_thread_wait_seconds_total,\
    kata_sandbox_vcpus";

/// Families to serve, and what has to be asked for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    pub filter: Filter,
    pub wish: Wish,
    /// Whether the page is to be short: without HELP lines, and compressed harder.
    pub is_lean: bool,
}

impl Selection {
    /// A profile, and families beside it: prefixes to serve as well, and with a `-` before them, to leave out. Under the
    /// full profile, prefixes to serve are all that is served.
    pub fn new(profile: Profile, families: &str) -> Self {
        match profile {
            Profile::Full => Self::of(families),
            Profile::Lean => {
                let mut lean = Self::of(&format!("{LEAN},{families}"));
                lean.is_lean = true;
                // Whether a sandbox answers is then told by its statistics.
                lean.wish.pages = kept(families).any(needs_a_page);
                lean
            }
        }
    }

    /// The families with these prefixes. Empty: all families.
    pub fn of(families: &str) -> Self {
        let filter = Filter::parse(families);
        let mut kept = kept(families).peekable();
        let fits = |prefixes: &[&str]| prefixes.iter().any(|prefix| filter.may_fit(prefix));
        let vm = filter.may_fit("kata_sandbox_").then(|| VmParts {
            threads: fits(&["kata_sandbox_thread", "kata_sandbox_vcpu"]),
            cgroup: fits(&["kata_sandbox_cgroup_"]),
            disk: fits(&["kata_sandbox_disk_"]),
            links: fits(&["kata_sandbox_network_"]),
        });
        let wish = Wish {
            pages: kept.peek().is_none() || kept.any(needs_a_page),
            stats: vm.is_some() || filter.may_fit("container_") || filter.may_fit("kata_monitor_container_"),
            vm,
            host: container_metrics::needs_host(&filter),
        };
        Self {
            filter,
            wish,
            is_lean: false,
        }
    }

    /// What both let through.
    pub fn and(&self, other: Self) -> Self {
        let (one, other_wish) = (self.wish, other.wish);
        Self {
            filter: self.filter.clone().and(other.filter),
            is_lean: self.is_lean || other.is_lean,
            wish: Wish {
                pages: one.pages && other_wish.pages,
                // A sandbox's row is made of its statistics where its page is not asked for.
                stats: one.stats && (other_wish.stats || other_wish.pages && !one.pages),
                vm: one.vm.zip(other_wish.vm).map(|(one, other)| one.and(other)),
                host: one.host && other_wish.host,
            },
        }
    }
}

/// The prefixes that are to be served.
fn kept(families: &str) -> impl Iterator<Item = &str> {
    let prefixes = families.split(',').map(str::trim);
    prefixes.filter(|prefix| !prefix.is_empty() && !prefix.starts_with('-'))
}

/// Whether a sandbox's own page may have families with this prefix, or has to be asked for them.
fn needs_a_page(prefix: &str) -> bool {
    let starts = |ours: &str| prefix.starts_with(ours);
    match starts("kata_monitor_") {
        true => starts("kata_monitor_sandbox_") || "kata_monitor_sandbox_".starts_with(prefix),
        false => !starts("container_") && !starts("kata_sandbox_"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_in_the_page_is_not_asked_for() {
        for (families, pages, stats, vm, host) in [
            ("", true, true, true, true),
            (" , ", true, true, true, true),
            ("kata_guest_", true, false, false, false),
            ("container_cpu", false, true, false, true),
            ("container_cpu_usage,container_memory_", false, true, false, false),
            ("container_fs_usage_bytes", false, true, false, true),
            ("container_", false, true, false, true),
            ("c", true, true, false, true),
            ("kata_", true, true, true, false),
            ("kata_sandbox_overhead_", false, true, true, false),
            ("kata_monitor_container_up", false, true, false, false),
            ("kata_monitor_process_", false, false, false, false),
            ("kata_monitor_sandbox_up", true, false, false, false),
            ("kata_monitor_", true, true, false, false),
            ("kata_guest_,container_", true, true, false, true),
            ("go_", true, false, false, false),
            ("-kata_sandbox_", true, true, false, true),
            ("-kata_guest_netdev_stat", true, true, true, true),
            ("kata_,-kata_sandbox_,-kata_monitor_", true, false, false, false),
        ] {
            let wish = Selection::of(families).wish;
            let found = (wish.pages, wish.stats, wish.vm.is_some(), wish.host);
            assert_eq!(found, (pages, stats, vm, host), "{families}");
        }
        let narrowed = Selection::of("kata_sandbox_,container_").and(Selection::of("kata_"));
        let expected = Wish {
            pages: false,
            stats: true,
            vm: Some(VmParts::ALL),
            host: false,
        };
        assert_eq!(narrowed.wish, expected);
    }

    #[test]
    fn the_lean_profile_asks_no_sandbox_for_its_page() {
        let lean = |families| Selection::new(Profile::Lean, families);
        assert!(!lean("").wish.pages && lean("").wish.stats);
        let read = VmParts {
            cgroup: false,
            disk: false,
            ..VmParts::ALL
        };
        assert_eq!(lean("").wish.vm, Some(read), "and not what it does not serve");
        assert!(
            lean("kata_guest_load").wish.pages,
            "unless a family of it is wanted"
        );
        assert!(lean("kata_guest_load").filter.may_fit("kata_sandbox_info"));
        let row = lean("").and(Selection::of("kata_monitor_sandbox_up"));
        assert!(
            row.wish.stats && !row.wish.pages,
            "it says whether the sandbox answers"
        );
        assert!(!lean("-kata_sandbox_").filter.may_fit("kata_sandbox_network_"));
        assert_eq!(Selection::new(Profile::Full, ""), Selection::of(""));
    }
}
