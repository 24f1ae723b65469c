//! The cgroup of a container that runs on this host: where it is, and what its files say. For containers of runc and
//! crun. A sandboxed container's processes are in its guest, and the host's cgroup is the sandbox's.

mod mounts;
mod processes;
mod reader;

pub use mounts::{CgroupError, CgroupMounts};
pub use processes::{CountBounds, ProcessCounts};
pub use reader::Cgroup;
