//! The names of block devices.

use std::path::Path;

use super::files;

/// `uevent` has a few lines.
const LIMIT: u64 = 64 << 10;

/// The path of a block device (`/dev/sda`) by its numbers; `None` where this machine has no such device. A guest's
/// devices are not this machine's: the same numbers mean other devices there.
pub fn path(major: u64, minor: u64) -> Option<String> {
    path_below(Path::new("/sys/dev/block"), major, minor)
}

/// The path of a SCSI disk by its numbers, which mean the same on every Linux machine, a guest too: block majors 8, 65
/// to 71 and 128 to 135, sixteen minors a disk (Documentation/admin-guide/devices.txt of the kernel). `None` for all other
/// devices: virtio's block devices, device mapper and NVMe get whatever numbers are free.
pub fn well_known_path(major: u64, minor: u64) -> Option<String> {
    let block = match major {
        8 => 0,
        65..=71 => major - 64,
        128..=135 => major - 120,
        _ => return None,
    };
    if minor > 255 {
        return None;
    }
    let (disk, partition) = (block * 16 + minor / 16, minor % 16);
    let mut path = format!("/dev/sd{}", letters(disk));
    if partition != 0 {
        path.push_str(&partition.to_string());
    }
    Some(path)
}

/// a to z, then aa, ab and so on.
fn letters(number: u64) -> String {
    let mut letters = Vec::new();
    let mut rest = number + 1;
    while rest > 0 {
        rest -= 1;
        letters.push(char::from(b'a' + u8::try_from(rest % 26).unwrap_or(0)));
        rest /= 26;
    }
    letters.into_iter().rev().collect()
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

    #[test]
    fn scsi_disks_have_the_same_numbers_everywhere() {
        // From the kernel's devices.txt.
        for (major, minor, expected) in [
            (8, 0, "/dev/sda"),
            (8, 1, "/dev/sda1"),
            (8, 31, "/dev/sdb15"),
            (8, 240, "/dev/sdp"),
            (65, 0, "/dev/sdq"),
            (65, 160, "/dev/sdaa"),
            (71, 240, "/dev/sddx"),
            (128, 0, "/dev/sddy"),
            (135, 255, "/dev/sdiv15"),
        ] {
            assert_eq!(well_known_path(major, minor).as_deref(), Some(expected));
        }
        for (major, minor) in [
            (254, 0),
            (253, 0),
            (259, 1),
            (0, 0),
            (8, 256),
            (u64::MAX, u64::MAX),
        ] {
            assert_eq!(well_known_path(major, minor), None, "{major}:{minor}");
        }
    }
}
