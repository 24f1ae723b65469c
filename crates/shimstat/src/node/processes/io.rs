//! What processes read and write, from `/proc/<pid>/io`.

use super::host::HostProcesses;
use crate::node::files::ReadError;
use crate::node::proc_fs::{Roots, field};

/// What a process has read and written since it started. Only root and the process's own user may look at it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessIo {
    /// Bytes read by system calls, from whatever it was: files, pipes, sockets (`rchar`).
    pub read_chars: u64,
    /// Bytes written by system calls (`wchar`).
    pub write_chars: u64,
    /// System calls that read (`syscr`).
    pub read_calls: u64,
    /// System calls that write (`syscw`).
    pub write_calls: u64,
    /// Bytes that a disk had to fetch (`read_bytes`).
    pub read_bytes: u64,
    /// Bytes to be written to a disk, counted when the page becomes dirty (`write_bytes`).
    pub write_bytes: u64,
    /// Of those, bytes that need not be written after all, as the file was removed or cut (`cancelled_write_bytes`).
    pub cancelled_write_bytes: u64,
}

impl ProcessIo {
    /// Reads `/proc/<pid>/io`, which takes root or the process's own user.
    pub fn read(pid: u32) -> Result<Self, ReadError> {
        Self::read_in(Roots::host(), pid)
    }

    pub(super) fn read_in(roots: Roots<'_>, pid: u32) -> Result<Self, ReadError> {
        roots.parse(pid, "io", |text| {
            Some(Self {
                read_chars: field(text, "rchar")?,
                write_chars: field(text, "wchar")?,
                read_calls: field(text, "syscr")?,
                write_calls: field(text, "syscw")?,
                read_bytes: field(text, "read_bytes")?,
                write_bytes: field(text, "write_bytes")?,
                cancelled_write_bytes: field(text, "cancelled_write_bytes")?,
            })
        })
    }

    fn plus(self, other: Self) -> Self {
        Self {
            read_chars: self.read_chars.saturating_add(other.read_chars),
            write_chars: self.write_chars.saturating_add(other.write_chars),
            read_calls: self.read_calls.saturating_add(other.read_calls),
            write_calls: self.write_calls.saturating_add(other.write_calls),
            read_bytes: self.read_bytes.saturating_add(other.read_bytes),
            write_bytes: self.write_bytes.saturating_add(other.write_bytes),
            cancelled_write_bytes: self
                .cancelled_write_bytes
                .saturating_add(other.cancelled_write_bytes),
        }
    }
}

impl HostProcesses {
    /// What the processes have read and written; `None` where that of one of them cannot be read. A guest's files go
    /// through virtiofsd, its disks through the VMM.
    pub fn io(&self) -> Option<ProcessIo> {
        self.io_in(Roots::host())
    }

    fn io_in(&self, roots: Roots<'_>) -> Option<ProcessIo> {
        let mut each = self
            .processes
            .iter()
            .map(|process| ProcessIo::read_in(roots, process.pid).ok());
        each.try_fold(ProcessIo::default(), |sum, io| Some(sum.plus(io?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::proc_fs::testing::Tree;
    use crate::node::processes::{Part, ProcessUsage};

    #[test]
    fn the_io_of_virtiofsd_is_that_of_both_its_processes() {
        let io = |n: u64| {
            format!(
                "rchar: {n}1\nwchar: {n}2\nsyscr: {n}3\nsyscw: {n}4\nread_bytes: {n}5\nwrite_bytes: {n}6\n\
                 cancelled_write_bytes: {n}7\n"
            )
        };
        let tree = Tree::new();
        tree.process(30, "virtiofsd", 1, 0)
            .process(31, "virtiofsd", 30, 0);
        let processes = HostProcesses {
            part: Part::Virtiofsd,
            processes: [30, 31]
                .map(|pid| ProcessUsage::read_in(tree.roots(), pid).unwrap())
                .into(),
        };
        tree.file(30, "io", &io(1));
        assert_eq!(processes.io_in(tree.roots()), None, "one of them is not known");
        tree.file(31, "io", &io(2));
        let expected = ProcessIo {
            read_chars: 32,
            write_chars: 34,
            read_calls: 36,
            write_calls: 38,
            read_bytes: 40,
            write_bytes: 42,
            cancelled_write_bytes: 44,
        };
        assert_eq!(processes.io_in(tree.roots()), Some(expected));
        tree.file(31, "io", "rchar: 1\n");
        assert_eq!(
            ProcessIo::read_in(tree.roots(), 31).unwrap_err().to_string(),
            format!(
                "read {}: not in the format of proc(5)",
                tree.roots().path(31, "io").display()
            )
        );
    }

    #[test]
    fn our_own_reading_is_counted() {
        let before = ProcessIo::read(std::process::id()).unwrap();
        let bytes = std::fs::read("/proc/self/status").unwrap();
        let after = ProcessIo::read(std::process::id()).unwrap();
        assert!(after.read_chars >= before.read_chars + bytes.len() as u64);
        assert!(after.read_calls > before.read_calls);
    }
}
