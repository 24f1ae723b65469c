//! Decoders of this module that nobody outside has a use for, for fuzz targets.

use super::processes::memory;
use super::{ended, hypervisor, init_process, mountinfo, proc_fs, spec};
use crate::shim::address::Endpoint;

/// Reads the files of a bundle, and those that a shim and a manager keep beside it.
pub fn bundle_files(bytes: &[u8]) {
    if let Ok(spec) = spec::Spec::from_json(bytes) {
        let names = spec.annotations.names();
        let _ = (
            spec.annotations.role("id"),
            names.pod(),
            spec.annotations.handler(),
        );
    }
    let _ = spec::mount_sources(bytes);
    let _ = ended::cri(bytes);
    let _ = Endpoint::from_bootstrap(bytes);
    if let Ok(state) = serde_json::from_slice(bytes) {
        let _ = (hypervisor::from_go(&state), hypervisor::from_rust(&state));
    }
}

/// Sorts the mappings of an `smaps` file: the guest's memory in all, and the process's share of the rest, in bytes.
pub fn smaps(text: &str, is_vmm: bool) -> (u64, u64) {
    let (guest, rest) = memory::sort_mappings(text, is_vmm);
    (guest.total(), rest)
}

/// Reads the tables of `/proc`.
pub fn proc_tables(text: &str) {
    if let Some(stat) = proc_fs::Stat::parse(text) {
        let _ = stat.cpu();
    }
    let _ = proc_fs::field(text, "VmRSS");
    let _ = init_process::SoftUlimits::parse(text);
    let _ = mountinfo::parse(text).count();
}
