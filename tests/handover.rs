//! Subcommands that are not ours, before real programs of our name on `PATH`.

#![allow(clippy::restriction)] // A test may panic.

mod mock;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use mock::finish;

const OURS: &str = env!("CARGO_BIN_EXE_kata-runtime");

/// A directory with another program of our name, which prints its arguments and ends with status 7.
fn another(directory: &Path) -> PathBuf {
    fs::create_dir_all(directory).unwrap();
    let path = directory.join("kata-runtime");
    fs::write(
        &path,
        "#!/bin/sh\nfor a in \"$@\"; do printf '<%s>' \"$a\"; done\necho\nexit 7\n",
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    directory.to_path_buf()
}

/// Directories with copies of our own program: not the same file, and still ourselves.
fn copies(directory: &Path) -> [PathBuf; 2] {
    ["copy1", "copy2"].map(|name| {
        let copy = directory.join(name);
        fs::create_dir_all(&copy).unwrap();
        fs::copy(OURS, copy.join("kata-runtime")).unwrap();
        copy
    })
}

fn run(path: &[&Path], arguments: &[&str]) -> mock::Ran {
    let mut command = Command::new(OURS);
    // The scripts' own shell is still to be found.
    let path: Vec<OsString> = path
        .iter()
        .map(|p| p.as_os_str().to_os_string())
        .chain(["/bin".into()])
        .collect();
    command
        .args(arguments)
        .env("PATH", std::env::join_paths(path).unwrap());
    finish(command)
}

#[test]
fn an_unknown_subcommand_goes_to_the_next_program_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let own = Path::new(OURS).parent().unwrap();
    let [copy1, copy2] = copies(dir.path());
    let other = another(&dir.path().join("other"));
    for arguments in [
        &["check", "--verbose", "a b", "", "*"][..],
        &["--config", "/etc/kata.toml", "exec", "events-like"],
        &["env", "--json"],
    ] {
        let ran = run(&[own, &copy1, &copy2, &other], arguments);
        let expected: String = arguments.iter().map(|a| format!("<{a}>")).collect();
        assert_eq!(
            (ran.status, ran.stdout.trim_end()),
            (Some(7), expected.as_str()),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn without_another_program_it_is_the_usual_error() {
    let dir = tempfile::tempdir().unwrap();
    let [copy1, copy2] = copies(dir.path());
    let ran = run(&[&copy1, &copy2], &["check"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""));
    assert!(
        ran.stderr.starts_with("error: unrecognized subcommand 'check'"),
        "{}",
        ran.stderr
    );
}

#[test]
fn our_own_subcommands_and_help_stay_here() {
    let dir = tempfile::tempdir().unwrap();
    let other = another(&dir.path().join("other"));
    assert_eq!(run(&[&other], &["--help"]).status, Some(0));
    assert_eq!(run(&[&other], &["events", "--nonsense", "x"]).status, Some(2));
    // Whatever is on this machine.
    let alone = run(&[&other], &[]);
    let said = alone.stdout + &alone.stderr;
    assert!(
        said.contains("n this node") || said.starts_with("no containers"),
        "{said}"
    );
    let version = run(&[&other], &["--version"]);
    assert_eq!(version.status, Some(0));
    let expected = concat!("kata-runtime ", env!("CARGO_PKG_VERSION"), " (commit ");
    assert!(version.stdout.starts_with(expected), "{}", version.stdout);
}
