//! Passing a command line that is not ours to the next `kata-runtime` on `PATH`.
//!
//! Nodes with Kata Containers have one, with subcommands of its own (`check`, `env`, `exec`, …). This way ours can stand
//! in front of it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::error::{ContextKind, ErrorKind};

use crate::cli;
use crate::exit::Failure;
use crate::output;

const NAME: &str = "kata-runtime";

/// The programs that have passed the command line on, as `device:inode` pairs: two copies of this program on `PATH` must
/// not pass it to each other forever.
const HANDED_ON_BY: &str = "KATA_RUNTIME_HANDED_ON_BY";

/// Passes the command line on if it is not ours; otherwise prints clap's message and returns its status.
pub fn run_or_exit(unparsed: clap::Error) -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    if !is_ours(unparsed.kind(), &arguments)
        && let Some(failure) = hand_on(&arguments)
    {
        return output::report(&failure);
    }
    // A closed pipe is not an error: nobody is reading.
    let _ = unparsed.print();
    if unparsed.kind() == ErrorKind::InvalidSubcommand
        && unparsed.get(ContextKind::SuggestedSubcommand).is_none()
    {
        output::notice(
            "A command that this kata-runtime does not have is passed to the next one on PATH (Kata's is often in \
             /opt/kata/bin): there is none.",
        );
    }
    ExitCode::from(u8::try_from(unparsed.exit_code()).unwrap_or(2))
}

/// Whether what clap rejects was meant for us. An unknown option belongs to the other program unless one of our
/// subcommands follows: Kata's has global options too (`--config`, `--rootless`, …).
fn is_ours(kind: ErrorKind, arguments: &[OsString]) -> bool {
    match kind {
        ErrorKind::InvalidSubcommand => false,
        ErrorKind::UnknownArgument => {
            let ours = cli::subcommands();
            arguments
                .iter()
                .any(|a| ours.iter().any(|name| a.as_os_str() == OsStr::new(name)))
                || arguments.iter().all(|a| a.as_encoded_bytes().starts_with(b"-"))
        }
        _ => true,
    }
}

/// Becomes the next program of our name. Returns `None` if there is none, and a failure if it cannot be run.
fn hand_on(arguments: &[OsString]) -> Option<Failure> {
    let mut seen = env::var(HANDED_ON_BY).unwrap_or_default();
    if let Ok(own) = fs::metadata("/proc/self/exe") {
        seen = format!("{seen} {}", identity(&own));
    }
    let next = next_on(&env::var_os("PATH")?, &seen)?;
    let error = Command::new(&next)
        .arg0(NAME)
        .args(arguments)
        .env(HANDED_ON_BY, seen)
        .exec();
    Some(
        Failure::new(format!(
            "run {}, to which this command line was passed: {error}",
            next.display()
        ))
        .and("kata-runtime --help shows this program's own commands"),
    )
}

/// The first program of our name on the path that has not been seen yet.
fn next_on(path: &OsStr, seen: &str) -> Option<PathBuf> {
    env::split_paths(path)
        .map(|directory| directory.join(NAME))
        .find(|candidate| is_other(candidate, seen))
}

fn is_other(candidate: &Path, seen: &str) -> bool {
    fs::metadata(candidate).is_ok_and(|metadata| {
        metadata.is_file()
            && metadata.permissions().mode() & 0o111 != 0
            && !seen.split_whitespace().any(|one| one == identity(&metadata))
    })
}

/// Identifies a file, whatever path leads to it.
fn identity(metadata: &Metadata) -> String {
    format!("{}:{}", metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(directory: &Path, mode: u32) -> PathBuf {
        fs::create_dir_all(directory).unwrap();
        let path = directory.join(NAME);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn the_next_program_is_the_first_that_is_not_ourselves() {
        let dir = tempfile::tempdir().unwrap();
        let [ours, link, plain, next] = ["ours", "link", "plain", "next"].map(|name| dir.path().join(name));
        let own = program(&ours, 0o755);
        fs::create_dir_all(&link).unwrap();
        std::os::unix::fs::symlink(&own, link.join(NAME)).unwrap();
        program(&plain, 0o644);
        let expected = program(&next, 0o755);
        let path = env::join_paths([&ours, &link, &plain, &dir.path().join("missing"), &next]).unwrap();
        let seen = identity(&fs::metadata(&own).unwrap());
        assert_eq!(next_on(&path, &seen), Some(expected.clone()));
        // It may have passed the command line on before.
        let both = format!("{seen} {}", identity(&fs::metadata(&expected).unwrap()));
        assert_eq!(next_on(&path, &both), None);
    }

    #[test]
    fn what_is_ours_stays_with_us() {
        let arguments = |text: &str| text.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        assert!(!is_ours(ErrorKind::InvalidSubcommand, &arguments("check")));
        assert!(!is_ours(
            ErrorKind::UnknownArgument,
            &arguments("--config /etc/kata.toml check")
        ));
        assert!(is_ours(
            ErrorKind::UnknownArgument,
            &arguments("events --nonsense x")
        ));
        assert!(is_ours(ErrorKind::UnknownArgument, &arguments("--nonsense")));
        assert!(is_ours(
            ErrorKind::ValueValidation,
            &arguments("events --interval 0")
        ));
        assert!(is_ours(ErrorKind::DisplayHelp, &arguments("--help")));
    }
}
