//! The shim as a program. That there is a test of it also makes `cargo test` build it, for the tests that launch it.

#![allow(clippy::restriction)] // A test may panic.

use std::process::Command;

#[test]
fn a_person_who_starts_it_is_told_that_containerd_does() {
    let output = Command::new(env!("CARGO_BIN_EXE_containerd-shim-test-sandbox-v2"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("containerd starts this program"), "{said}");
}
