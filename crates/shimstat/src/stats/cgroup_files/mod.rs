//! A container's numbers from the text of its cgroup's files. Who reads the files is another matter.
//!
//! Unlike a shim's reply, files tell a zero from a number that does not exist: what has no file, or no line in it,
//! is `None`. Sources: the kernel's
//! [cgroup v2](https://docs.kernel.org/admin-guide/cgroup-v2.html) and
//! [v1 memory](https://docs.kernel.org/admin-guide/cgroup-v1/memory.html) documentation.

mod files;
mod v1;
mod v2;

use super::model::Stats;
pub use files::{CgroupVersion, ReadFile};
pub(super) use files::{Files, number};

/// Reads the numbers of a cgroup, those of child cgroups included. `page_sizes` are the sizes of huge pages that
/// this machine has, as the kernel names them in files of cgroups (`2MB`).
pub fn from_files(version: CgroupVersion, page_sizes: &[String], read: ReadFile<'_>) -> Stats {
    match version {
        CgroupVersion::V1 => v1::stats(&Files(read), page_sizes),
        CgroupVersion::V2 => v2::stats(&Files(read), page_sizes),
    }
}

#[cfg(test)]
mod tests;
