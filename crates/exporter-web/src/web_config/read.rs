//! Reading the files that the configuration names.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// The file is a page long; a key and a bundle of certificates may be in it, or in a file that it names. The bundle of
/// all public authorities has 220 KB.
pub const MAX_FILE: u64 = 4 << 20;

/// Reads a file within the limit for files written by hand.
pub fn limited(path: &Path) -> io::Result<Vec<u8>> {
    // Looked at first: to open a fifo would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        let reason = format!("larger than {} MiB", MAX_FILE >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(bytes)
}
