//! How much a container has written into its layer, which only a walk over the layer tells.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How much of a layer is looked at. A layer with more has no number: a part of it would be a wrong one.
#[derive(Debug, Clone, Copy)]
pub(super) struct WalkBounds {
    /// Files and directories, which take some 3 µs each.
    pub entries: usize,
    pub until: Instant,
}

/// Directories below each other; each of them is a descriptor that stays open.
const MOST_DEPTH: usize = 100;

/// The bytes that files below a directory take on disk, those with several names once. `None` past the bounds, or where
/// something cannot be read.
pub(super) fn usage(directory: &Path, bounds: WalkBounds) -> Option<u64> {
    let mut walk = Walk {
        left: bounds.entries,
        until: bounds.until,
        bytes: 0,
        linked: HashSet::new(),
    };
    walk.directory(&open(directory).ok()?, 0)?;
    Some(walk.bytes)
}

struct Walk {
    left: usize,
    until: Instant,
    bytes: u64,
    /// Files that have several names.
    linked: HashSet<(u64, u64)>,
}

impl Walk {
    fn directory(&mut self, directory: &File, depth: usize) -> Option<()> {
        if depth > MOST_DEPTH || Instant::now() > self.until {
            return None;
        }
        // By its descriptor: the container can put a link in the place of any of its directories.
        let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        for entry in fs::read_dir(&path).ok()? {
            let entry = entry.ok()?;
            self.left = self.left.checked_sub(1)?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(_) => return None,
            };
            let is_new = metadata.is_dir()
                || metadata.nlink() < 2
                || self.linked.insert((metadata.dev(), metadata.ino()));
            if is_new {
                self.bytes = self.bytes.saturating_add(metadata.blocks().saturating_mul(512));
            }
            if metadata.is_dir() {
                match open(&entry.path()) {
                    Ok(child) => self.directory(&child, depth + 1)?,
                    // Removed meanwhile, or another thing by now.
                    Err(error) if has_changed(&error) => {}
                    Err(_) => return None,
                }
            }
        }
        Some(())
    }
}

/// Opens a directory, and no link to one.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
}

fn has_changed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENOTDIR))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::process::Command;
    use std::time::Duration;

    fn bounds(entries: usize) -> WalkBounds {
        WalkBounds {
            entries,
            until: Instant::now() + Duration::from_secs(10),
        }
    }

    #[test]
    fn a_layer_takes_what_du_says() {
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("layer");
        fs::create_dir_all(layer.join("a/b")).unwrap();
        fs::write(layer.join("a/b/file"), vec![7; 100_000]).unwrap();
        fs::hard_link(layer.join("a/b/file"), layer.join("twice")).unwrap();
        fs::write(dir.path().join("elsewhere"), vec![7; 1 << 20]).unwrap();
        symlink(dir.path(), layer.join("out")).unwrap();
        let output = Command::new("du")
            .args(["-s", "-B512"])
            .arg(&layer)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let blocks: u64 = text.split_whitespace().next().unwrap().parse().unwrap();
        // du counts the directory itself as well.
        let own = fs::metadata(&layer).unwrap().blocks();
        assert_eq!(usage(&layer, bounds(5)), Some((blocks - own) * 512));
        assert_eq!(usage(&layer, bounds(4)), None, "there are five entries");
        let over = WalkBounds {
            until: Instant::now() - Duration::from_millis(1),
            ..bounds(5)
        };
        assert_eq!(usage(&layer, over), None);
        assert_eq!(usage(&layer.join("out"), bounds(5)), None, "no link is followed");
    }
}
