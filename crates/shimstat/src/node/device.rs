//! The names of this machine's block devices.

use std::path::Path;

use super::files;

/// `uevent` has a few lines.
const LIMIT: u64 = 64 << 10;

/// The path of a block device (`/dev/sda`) by its numbers; `None` where this machine has no such device. A guest's
/// devices are none of this machine's: the same numbers mean something else there.
pub fn path(major: u64, minor: u64) -> Option<String> {
    path_below(Path::new("/sys/dev/block"), major, minor)
}

fn path_below(root: &Path, major: u64, minor: u64) -> Option<String> {
    let file = root.join(format!("{major}:{minor}")).join("uevent");
    let text = files::read_text(&file, LIMIT).ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some(format!("/dev/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn reads_the_name_that_the_kernel_has() {
        let dir = tempfile::tempdir().unwrap();
        for (numbers, text) in [
            ("8:0", "MAJOR=8\nMINOR=0\nDEVNAME=sda\nDEVTYPE=disk\nDISKSEQ=9\n"),
            ("253:1", "MAJOR=253\nMINOR=1\nDEVNAME=mapper/data\n"),
            ("7:0", "MAJOR=7\nMINOR=0\n"),
        ] {
            fs::create_dir(dir.path().join(numbers)).unwrap();
            fs::write(dir.path().join(numbers).join("uevent"), text).unwrap();
        }
        let path = |major, minor| path_below(dir.path(), major, minor);
        assert_eq!(path(8, 0).as_deref(), Some("/dev/sda"));
        assert_eq!(path(253, 1).as_deref(), Some("/dev/mapper/data"));
        assert_eq!(path(7, 0), None);
        assert_eq!(path(8, 1), None);
    }
}
