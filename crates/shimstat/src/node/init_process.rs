//! What the kernel says of a container's first process on this host: its limits, and the filesystem it sees as root.
//! For containers of runc and crun; whoever asks makes sure that the pid is still the container's
//! ([`CgroupMounts::of_process`](super::cgroup::CgroupMounts::of_process)).

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::path::Path;

use super::files::{self, ReadError};
use super::mountinfo;

/// `limits` has 1.5 KB.
const LIMITS_LIMIT: u64 = 64 << 10;

/// A container has some thirty mounts of 200 bytes.
const MOUNTINFO_LIMIT: u64 = 1 << 20;

/// The soft limits of a process, from `/proc/<pid>/limits` (see proc_pid_limits(5)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SoftUlimits {
    /// How many files it may have open: cAdvisor's `container_ulimits_soft{ulimit="max_open_files"}`, which is the
    /// only one that cAdvisor has (`processLimitsFile` in `lib/container/libcontainer/handler.go`, July 2026). -1 is
    /// unlimited, as there.
    pub max_open_files: Option<i64>,
}

impl SoftUlimits {
    /// Those of a process.
    pub fn read(pid: u32) -> Result<Self, ReadError> {
        let path = format!("/proc/{pid}/limits");
        Ok(Self::parse(&files::read_text(path.as_ref(), LIMITS_LIMIT)?))
    }

    /// Lines such as `Max open files            1024                 1048576              files`.
    fn parse(text: &str) -> Self {
        let soft = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            match line.split_ascii_whitespace().next()? {
                "unlimited" => Some(-1),
                number => number.parse().ok().filter(|number| *number >= 0),
            }
        };
        Self {
            max_open_files: soft("Max open files"),
        }
    }
}

/// The filesystem that a container's writes to its root go to. For an overlay it is the one of its upper layer, which
/// all containers on the same disk share: these are the disk's numbers and not the container's, as cAdvisor's and
/// those of CRI runtimes are. What the container itself has written cannot be told without a walk over the layer, so
/// there is no usage here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootFilesystem {
    /// Its type, such as `overlay`.
    pub fs_type: String,
    /// Its size in bytes: cAdvisor's `container_fs_limit_bytes`.
    pub size_bytes: u64,
    /// Inodes: cAdvisor's `container_fs_inodes_total`. `None` where the filesystem makes them as needed (btrfs).
    pub inodes: Option<u64>,
    /// Inodes that are free: cAdvisor's `container_fs_inodes_free`.
    pub inodes_free: Option<u64>,
}

/// Filesystems that answer from memory. Others (FUSE, NFS) may wait for a server, and are not asked.
const LOCAL: [&str; 10] = [
    "overlay", "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "erofs",
];

impl RootFilesystem {
    /// That of a process, by statvfs(3) on `/proc/<pid>/root`. `Ok(None)` where its type is not one of those that
    /// answer at once.
    pub fn read(pid: u32) -> Result<Option<Self>, ReadError> {
        let path = format!("/proc/{pid}/mountinfo");
        let text = files::read_text(path.as_ref(), MOUNTINFO_LIMIT)?;
        // A later mount hides an earlier one.
        let root = mountinfo::parse(&text)
            .filter(|mount| mount.point == Path::new("/"))
            .last();
        let Some(root) = root.filter(|root| LOCAL.contains(&root.fs_type.as_str())) else {
            return Ok(None);
        };
        let path = format!("/proc/{pid}/root");
        let numbers = statvfs(&path).map_err(|source| ReadError {
            path: path.into(),
            source,
        })?;
        let has_inodes = numbers.f_files != 0;
        Ok(Some(Self {
            fs_type: root.fs_type,
            size_bytes: numbers.f_blocks.saturating_mul(numbers.f_frsize),
            inodes: has_inodes.then_some(numbers.f_files),
            inodes_free: has_inodes.then_some(numbers.f_ffree),
        }))
    }
}

fn statvfs(path: &str) -> io::Result<libc::statvfs> {
    let path = CString::new(path)?;
    let mut numbers = MaybeUninit::uninit();
    // SAFETY: the path ends with a zero byte, and the kernel fills the whole struct where it returns 0.
    unsafe {
        if libc::statvfs(path.as_ptr(), numbers.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(numbers.assume_init())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn open_files_of_a_limits_file() {
        // As the kernel writes it.
        let limits = |soft: &str| {
            format!(
                "Limit                     Soft Limit           Hard Limit           Units     \n\
                 Max stack size            8388608              unlimited            bytes     \n\
                 Max open files            {soft:<20} 1048576              files     \n"
            )
        };
        let open_files = |text: &str| SoftUlimits::parse(text).max_open_files;
        assert_eq!(open_files(&limits("1024")), Some(1024));
        assert_eq!(open_files(&limits("unlimited")), Some(-1));
        assert_eq!(open_files(&limits("-7")), None);
        assert_eq!(open_files(&limits("many")), None);
        assert_eq!(open_files(""), None);
    }

    #[test]
    fn a_process_has_the_limit_that_it_was_given() {
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -Sn 37; read wait"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let mut read = SoftUlimits::read(child.id());
        while read.as_ref().is_ok_and(|read| read.max_open_files != Some(37))
            && std::time::Instant::now() < until
        {
            read = SoftUlimits::read(child.id());
        }
        assert_eq!(read.unwrap().max_open_files, Some(37));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(SoftUlimits::read(u32::MAX).unwrap_err().is_missing());
    }

    #[test]
    fn the_root_filesystem_is_the_one_that_df_shows() {
        let Some(root) = RootFilesystem::read(std::process::id()).unwrap() else {
            return; // Tests run on a root filesystem of another type.
        };
        let df = |what: &str| {
            let output = Command::new("df").args(["-B1", what, "/"]).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            text.lines().nth(1).unwrap().trim().to_owned()
        };
        assert_eq!(df("--output=fstype"), root.fs_type);
        assert_eq!(df("--output=size"), root.size_bytes.to_string());
        assert_eq!(df("--output=itotal"), root.inodes.unwrap_or(0).to_string());
        assert!(root.inodes_free <= root.inodes);
        assert!(RootFilesystem::read(u32::MAX).unwrap_err().is_missing());
    }
}
