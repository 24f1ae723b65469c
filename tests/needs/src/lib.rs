//! Some tests need programs or rights that not every machine has. Without them they are skipped, with a line on
//! stderr, so that plain `cargo test` passes everywhere. `tests/run.sh` installs everything and allows no skipping:
//! there, a missing program is a failure.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, PoisonError};
use std::{env, fs, thread};

/// Set by `tests/run.sh`: what is missing fails the test.
const SKIP_NOTHING: &str = "KATA_RUNTIME_TEST_SKIP_NOTHING";

static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Returns from the test unless everything that it names is there: programs on `PATH`, and `"root"`.
///
/// ```
/// # use test_needs::needs;
/// fn a_test() {
///     needs!("root", "openssl");
///     // …
/// }
/// # a_test();
/// ```
#[macro_export]
macro_rules! needs {
    ($($need:literal),+ $(,)?) => {
        if !$crate::can_run(&[$($need),+]) {
            return;
        }
    };
}

/// Whether a test that needs all of these can run; says so if not.
///
/// # Panics
///
/// When something is missing and `tests/run.sh` is running the test, as with everything here.
#[track_caller]
pub fn can_run(needs: &[&str]) -> bool {
    is_complete("", needs)
}

/// Whether a test can make a check that only this program can make; says so if not.
#[track_caller]
pub fn can_check_with(program: &str) -> bool {
    is_complete("part of ", &[program])
}

#[track_caller]
fn is_complete(part: &str, needs: &[&str]) -> bool {
    let missing: Vec<_> = needs.iter().filter(|need| !is_there(need)).copied().collect();
    if missing.is_empty() {
        return true;
    }
    skip(part, &missing.join(", "));
    false
}

/// Says that a test (or `part` of it) is skipped because something is missing.
#[track_caller]
pub fn skip(part: &str, missing: &str) {
    assert!(env::var_os(SKIP_NOTHING).is_none(), "missing: {missing}");
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    let line = format!("SKIPPED {part}{test}: missing {missing}\n");
    // A property test may come here for each of its cases.
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.insert(line.clone()) {
        // Straight to stderr: what print macros write is only shown of tests that fail.
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

fn is_there(need: &str) -> bool {
    if need == "root" {
        return fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(need).is_file())
}

#[cfg(test)]
mod tests {
    use super::is_there;

    #[test]
    fn programs_are_looked_up_in_the_path() {
        assert!(is_there("sh"));
        assert!(!is_there("no-such-program"));
    }
}
