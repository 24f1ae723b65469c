//! Whether a path can be looked at without asking anyone but this kernel.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Whether a path is on the filesystem of `/` or of `/run`, all the way, or would be if it existed. What is mounted
/// elsewhere may have a server that is gone, and looking at it may never end.
pub fn is_local(path: &Path) -> bool {
    if !path.is_absolute() {
        return false;
    }
    if crosses_no_mount(libc::AT_FDCWD, path) {
        return true;
    }
    let Ok(below_run) = path.strip_prefix("/run") else {
        return false;
    };
    open(libc::AT_FDCWD, Path::new("/run"), 0)
        .is_ok_and(|run| crosses_no_mount(run.as_raw_fd(), &Path::new(".").join(below_run)))
}

/// A mount point is noticed before anything on it is looked at.
fn crosses_no_mount(from: RawFd, path: &Path) -> bool {
    match open(from, path, libc::RESOLVE_NO_XDEV) {
        Ok(_) => true,
        Err(error) => error == libc::ENOENT || error == libc::ENOTDIR,
    }
}

/// Opens a path to nothing but its place; the error is the number of one.
fn open(from: RawFd, path: &Path, resolve: u64) -> Result<OwnedFd, i32> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| libc::EINVAL)?;
    // SAFETY: open_how is three numbers, of which zero is a valid value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_PATH | libc::O_CLOEXEC) as u64;
    how.resolve = resolve;
    // SAFETY: the path ends in a zero, and the kernel is told how long `how` is.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            from,
            path.as_ptr(),
            &raw const how,
            size_of_val(&how),
        )
    };
    match RawFd::try_from(fd) {
        // SAFETY: the descriptor is new, and nobody else's.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(std::io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EIO)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_mounts_are_not_local_and_what_does_not_exist_is() {
        assert!(is_local(Path::new("/usr")));
        assert!(is_local(Path::new("/no/such/path")));
        // A mount of its own on every machine.
        assert!(!is_local(Path::new("/proc/self")));
        assert!(!is_local(Path::new("/usr/../proc")));
    }
}
