//! The processes of a sandbox on this machine: its virtual machine monitor (VMM), virtiofsd, its shim. Everything here
//! is read from `/proc` and cgroupfs; neither the shim nor the guest is asked. docs/vm-cost.md has each figure with its
//! unit, source and cost.

mod answering;
mod cgroup;
mod host;
mod io;
mod kata_families;
mod links;
pub(super) mod memory;
mod overhead;
mod refresh;
mod role_times;
mod threads;
mod usage;
mod vm;

pub use super::proc_fs::ticks;
pub use answering::ShimTime;
pub use cgroup::SandboxCgroup;
pub use host::{HostProcesses, Part, host_processes};
pub use io::ProcessIo;
pub use kata_families::{HostFamily, HostSample, kata_families};
pub use links::HostLinks;
pub use memory::{GuestMemory, MappingsError, SandboxMemory};
pub use overhead::{CpuOverhead, ResourceUse, overhead};
pub use role_times::RoleTimes;
pub use threads::{Thread, ThreadRole, ThreadShare, ThreadTimes, Threads};
pub use usage::{ProcessMemory, ProcessUsage};
pub use vm::{SandboxReader, VmParts, VmUsage, vmm};
