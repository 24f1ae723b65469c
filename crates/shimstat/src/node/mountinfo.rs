//! Lines of `/proc/<pid>/mountinfo` (see proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A mount of a process's mount namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// The directory of the filesystem that is mounted: not `/` for a bind mount of a part of it.
    pub root: String,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Such as `cgroup2`.
    pub fs_type: String,
    /// The options of the filesystem, which for a cgroup v1 hierarchy are its controllers.
    pub options: String,
}

/// The mounts, in the order in which they were made. Lines of another form are left out.
pub(super) fn parse(text: &str) -> impl Iterator<Item = Mount> {
    text.lines().filter_map(mount)
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn mount(line: &str) -> Option<Mount> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, point) = (mount.next()?, mount.next()?);
    let mut filesystem = filesystem.split(' ');
    let (fs_type, options) = (filesystem.next()?, filesystem.nth(1)?);
    Some(Mount {
        root: String::from_utf8_lossy(&unescape(root)).into_owned(),
        point: OsString::from_vec(unescape(point)).into(),
        fs_type: fs_type.to_owned(),
        options: options.to_owned(),
    })
}

/// The kernel writes blanks and backslashes of a path as three octal digits: `\040`.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let escaped = after.get(..3).filter(|_| *byte == b'\\').and_then(octal);
        bytes.push(escaped.unwrap_or(*byte));
        let length = if escaped.is_some() { 3 } else { 0 };
        rest = after.get(length..).unwrap_or_default();
    }
    bytes
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_by_its_fields() {
        // The example of proc_pid_mountinfo(5), a blank, and a line without optional fields.
        let text = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n\
                    37 35 0:32 / /sys/fs/a\\040b\\134 rw shared:1 master:2 - cgroup2 cgroup2 rw,nsdelegate\n\
                    38 35 0:33 /x /c rw - cgroup cgroup rw,cpu,cpuacct\n";
        let mount = |root: &str, point: &str, fs_type: &str, options: &str| Mount {
            root: root.into(),
            point: point.into(),
            fs_type: fs_type.into(),
            options: options.into(),
        };
        let expected = [
            mount("/mnt1", "/mnt2", "ext3", "rw,errors=continue"),
            mount("/", "/sys/fs/a b\\", "cgroup2", "rw,nsdelegate"),
            mount("/x", "/c", "cgroup", "rw,cpu,cpuacct"),
        ];
        assert_eq!(parse(text).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn lines_of_another_form_are_left_out() {
        for line in [
            "",
            "1 2 3",
            "36 35 98:0 /mnt1 - ext3",
            " - ",
            "a - b c d",
            "1 2 3:4 / - ext3 a b",
        ] {
            assert_eq!(parse(line).next(), None, "{line}");
        }
        assert_eq!(unescape("\\04"), b"\\04");
        assert_eq!(unescape("\\777\\089"), b"\\777\\089", "not a byte");
    }
}
