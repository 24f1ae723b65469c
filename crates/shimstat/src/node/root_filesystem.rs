//! The filesystem that a container's writes to its root go to, and its writable layer. For containers of runc and crun;
//! whoever asks makes sure that the pid is still the container's
//! ([`CgroupMounts::of_process`](super::cgroup::CgroupMounts::of_process)).

use std::ffi::CString;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::device;
use super::files::{self, ReadError};
use super::mountinfo::{self, Mount};

/// A container has some thirty mounts of 200 bytes.
const MOUNTINFO_LIMIT: u64 = 1 << 20;

/// Filesystems that answer from memory. Others (FUSE, NFS) may wait for a server, and are not asked.
const LOCAL: [&str; 10] = [
    "overlay", "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "erofs",
];

/// The root of the host's mount namespace, in which the paths of snapshots are, or our own where process 1 may not be
/// looked at.
static HOST_ROOT: LazyLock<&Path> = LazyLock::new(|| {
    let host = Path::new("/proc/1/root");
    match host.join("proc").exists() {
        true => host,
        false => Path::new("/"),
    }
});

/// The filesystem that a container sees as root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootFilesystem {
    /// Its type, such as `overlay`.
    pub fs_type: String,
    /// The device that its writes go to, such as `/dev/sda1`. `None` where that is not one device with a name (btrfs, zfs,
    /// tmpfs), or cannot be told.
    pub device: Option<String>,
    /// The directory with the writable layer of an overlay, as this process sees it; `None` where it cannot be reached.
    pub layer: Option<PathBuf>,
}

/// The space of a filesystem. For an overlay it is that of the filesystem with its upper layer, which all containers on the
/// same disk share: these are the disk's numbers and not the container's, as cAdvisor's and those of CRI runtimes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilesystemSpace {
    /// Its size: cAdvisor's `container_fs_limit_bytes`.
    pub bytes: u64,
    /// Inodes: cAdvisor's `container_fs_inodes_total`. `None` where the filesystem makes them as needed (btrfs).
    pub inodes: Option<u64>,
    /// Inodes that are free: cAdvisor's `container_fs_inodes_free`.
    pub inodes_free: Option<u64>,
}

impl RootFilesystem {
    /// That of a process. `Ok(None)` where its type is not one of those that answer at once.
    pub fn find(pid: u32) -> Result<Option<Self>, ReadError> {
        let path = format!("/proc/{pid}/mountinfo");
        let text = files::read_text(path.as_ref(), MOUNTINFO_LIMIT)?;
        // A later mount hides an earlier one.
        let root = mountinfo::parse(&text)
            .filter(|mount| mount.point == Path::new("/"))
            .last();
        let Some(root) = root.filter(|root| LOCAL.contains(&root.fs_type.as_str())) else {
            return Ok(None);
        };
        let layer = layer(&root);
        let files = layer
            .clone()
            .unwrap_or_else(|| format!("/proc/{pid}/root").into());
        let device = fs::metadata(files)
            .ok()
            .and_then(|metadata| device::path(major(metadata.dev()), minor(metadata.dev())));
        Ok(Some(Self {
            fs_type: root.fs_type,
            device,
            layer,
        }))
    }

    /// Its space today, by statvfs(3) on the root of a process that has it as its root.
    pub fn space(&self, pid: u32) -> Result<FilesystemSpace, ReadError> {
        let path = format!("/proc/{pid}/root");
        let numbers = statvfs(&path).map_err(|source| ReadError {
            path: path.into(),
            source,
        })?;
        let has_inodes = numbers.f_files != 0;
        Ok(FilesystemSpace {
            bytes: numbers.f_blocks.saturating_mul(numbers.f_frsize),
            inodes: has_inodes.then_some(numbers.f_files),
            inodes_free: has_inodes.then_some(numbers.f_ffree),
        })
    }
}

/// The upper layer of an overlay. A path with a comma or a colon in it is escaped there, and not looked for.
fn layer(root: &Mount) -> Option<PathBuf> {
    let upper = root
        .options
        .split(',')
        .find_map(|option| option.strip_prefix("upperdir=/"))?;
    let path = HOST_ROOT.join(upper);
    (root.fs_type == "overlay" && path.is_dir()).then_some(path)
}

fn major(device: u64) -> u64 {
    u64::from(libc::major(device))
}

fn minor(device: u64) -> u64 {
    u64::from(libc::minor(device))
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
    fn the_root_filesystem_is_the_one_that_df_shows() {
        let pid = std::process::id();
        let Some(root) = RootFilesystem::find(pid).unwrap() else {
            return; // Tests run on a root filesystem of another type.
        };
        let space = root.space(pid).unwrap();
        let df = |what: &str| {
            let output = Command::new("df").args(["-B1", what, "/"]).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            text.lines().nth(1).unwrap().trim().to_owned()
        };
        assert_eq!(df("--output=fstype"), root.fs_type);
        assert_eq!(df("--output=size"), space.bytes.to_string());
        assert_eq!(df("--output=itotal"), space.inodes.unwrap_or(0).to_string());
        assert!(space.inodes_free <= space.inodes);
        if root.fs_type != "overlay" && df("--output=source").starts_with("/dev/") {
            assert_eq!(root.device, Some(df("--output=source")));
        }
        assert!(RootFilesystem::find(u32::MAX).unwrap_err().is_missing());
    }

    #[test]
    fn the_layer_of_an_overlay_is_its_upper_directory() {
        let dir = tempfile::tempdir().unwrap();
        let mount = |fs_type: &str, options: String| Mount {
            root: "/".into(),
            point: "/".into(),
            fs_type: fs_type.into(),
            options,
        };
        let options = format!("rw,lowerdir=/a:/b,upperdir={},workdir=/w", dir.path().display());
        let found = layer(&mount("overlay", options.clone())).unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(found.join("file").exists(), "{}", found.display());
        assert_eq!(layer(&mount("ext4", options)), None);
        assert_eq!(layer(&mount("overlay", "ro,lowerdir=/a".into())), None);
        let escaped = "rw,upperdir=/no\\:such".to_string();
        assert_eq!(layer(&mount("overlay", escaped)), None);
    }
}
