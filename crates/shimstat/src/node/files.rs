//! Reading the small files that containerd, shims and the kernel leave for us.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A file that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("read {}: {source}", path.display())]
pub struct ReadError {
    /// The file or directory.
    pub path: PathBuf,
    /// What the kernel reported; a file past its limit is `FileTooLarge`.
    pub source: io::Error,
}

impl ReadError {
    /// Whether the file is not there.
    pub fn is_missing(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        )
    }
}

/// The time of a change is only as exact as the kernel's tick. A file that was changed longer ago than this gets another
/// time with the next change; much longer than any tick.
const LONG_AGO: Duration = Duration::from_secs(2);

/// Tells a file from a later one at the same path, and from itself before it was written; and a directory from itself
/// before something was added, renamed or removed in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileStamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: Option<SystemTime>,
}

impl FileStamp {
    pub fn of(path: &Path) -> Result<Self, ReadError> {
        let metadata = std::fs::metadata(path).map_err(|source| ReadError {
            path: path.to_path_buf(),
            source,
        })?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: metadata.modified().ok(),
        })
    }

    /// Whether the next change will show.
    pub fn is_settled(&self, now: SystemTime) -> bool {
        let age = self
            .modified
            .and_then(|modified| now.duration_since(modified).ok());
        age.is_some_and(|age| age >= LONG_AGO)
    }
}

/// Room that is made at once: enough for most of the files that are read here. Those of /proc tell no length, and
/// grown into from nothing they take twice the calls.
const FIRST_READ: usize = 8 << 10;

/// Reads a whole regular file of at most `limit` bytes. Never waits: a FIFO in its place is an error.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let error = |source| ReadError {
        path: path.to_path_buf(),
        source,
    };
    let (file, length) = open_with_length(path).map_err(error)?;
    // Read to its length, a file needs no second read that finds the end. Those of /proc have none.
    let expected = if length == 0 { limit } else { length.min(limit) };
    let room = usize::try_from(expected).unwrap_or(FIRST_READ).min(FIRST_READ);
    let mut bytes = Vec::with_capacity(room);
    file.take(expected + u64::from(expected == limit))
        .read_to_end(&mut bytes)
        .map_err(error)?;
    if bytes.len() as u64 > limit {
        return Err(error(too_large(limit)));
    }
    Ok(bytes)
}

/// Reads a text of at most `limit` bytes; bytes that are no UTF-8 are replaced.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String, ReadError> {
    Ok(String::from_utf8_lossy(&read(path, limit)?).into_owned())
}

/// Most files of the kernel's are shorter.
const KERNEL_FILE: usize = 4 << 10;

/// Reads one of the kernel's files of at most `limit` bytes, in `/proc` or a cgroup, and makes something of its text. Most
/// take a single read: the kernel makes their whole text at once, so that a short read is the end. Not for lists, such as
/// `cgroup.procs`, which it makes line by line.
pub(crate) fn read_kernel_file<T>(
    path: &Path,
    limit: u64,
    parse: impl FnOnce(&str) -> T,
) -> Result<T, ReadError> {
    let error = |source| ReadError {
        path: path.to_path_buf(),
        source,
    };
    let mut file = File::open(path).map_err(error)?;
    let mut first = [0; KERNEL_FILE];
    let length = loop {
        match file.read(&mut first) {
            Err(interrupted) if interrupted.kind() == io::ErrorKind::Interrupted => {}
            read => break read.map_err(error)?,
        }
    };
    let read = first.get(..length).unwrap_or_default();
    if length < KERNEL_FILE {
        return Ok(parse(&String::from_utf8_lossy(read)));
    }
    let mut bytes = read.to_vec();
    file.take(limit).read_to_end(&mut bytes).map_err(error)?;
    if bytes.len() as u64 > limit {
        return Err(error(too_large(limit)));
    }
    Ok(parse(&String::from_utf8_lossy(&bytes)))
}

fn too_large(limit: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {limit} bytes"))
}

/// A file that may be missing: `Ok(None)` where it is.
pub(crate) fn optional<T>(result: Result<T, ReadError>) -> Result<Option<T>, ReadError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a regular file without waiting for anybody.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    Ok(open_with_length(path)?.0)
}

fn open_with_length(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok((file, metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_up_to_the_limit_and_not_beyond() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        let error = read(&path, 4).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("read {}: longer than 4 bytes", path.display())
        );
    }

    #[test]
    fn reads_long_files_empty_ones_and_those_without_a_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        for length in [0, FIRST_READ - 1, FIRST_READ, FIRST_READ + 1, 3 * FIRST_READ] {
            let bytes = vec![b'x'; length];
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(read(&path, 1 << 20).unwrap(), bytes, "{length}");
            assert_eq!(read(&path, length as u64).unwrap(), bytes, "{length}");
            if length > 0 {
                assert!(read(&path, length as u64 - 1).is_err(), "{length}");
            }
        }
        let status = read("/proc/self/status".as_ref(), 1 << 20).unwrap();
        assert!(status.starts_with(b"Name:") && status.ends_with(b"\n"));
    }

    #[test]
    fn a_file_of_the_kernels_is_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        for length in [
            0,
            1,
            KERNEL_FILE - 1,
            KERNEL_FILE,
            KERNEL_FILE + 1,
            3 * KERNEL_FILE,
        ] {
            std::fs::write(&path, vec![b'x'; length]).unwrap();
            assert_eq!(read_kernel_file(&path, 1 << 20, str::len).unwrap(), length);
            if length > KERNEL_FILE {
                let error = read_kernel_file(&path, length as u64 - 1, str::len).unwrap_err();
                assert_eq!(error.source.kind(), io::ErrorKind::FileTooLarge, "{length}");
            }
        }
        assert!(
            read_kernel_file(&dir.path().join("no"), 1, str::len)
                .unwrap_err()
                .is_missing()
        );
    }

    #[test]
    fn a_missing_file_is_told_from_one_that_fails() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(optional(read(&dir.path().join("no"), 1)), Ok(None)));
        assert!(optional(read(dir.path(), 1)).is_err());
    }

    #[test]
    fn a_fifo_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        assert!(
            read(&path, 1)
                .unwrap_err()
                .to_string()
                .ends_with("not a regular file")
        );
    }
}
