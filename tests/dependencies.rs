//! What the crates below the program depend on, and how new a Rust all dependencies need.

#![allow(clippy::restriction)] // A test may panic.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

/// The crates below the program: what they may use of each other, and what they must not use.
const CRATES: [(&str, &[&str], &[&str]); 4] = [
    ("exporter-web", &["go-duration"], &[]),
    ("go-duration", &[], &[]),
    ("promtext", &[], &["hyper", "tokio"]),
    ("shimstat", &["go-duration"], &["hyper", "regex"]),
];

/// The program's own, for none of its crates.
const PROGRAM: [&str; 3] = ["clap", "kata-runtime", "ratatui"];

#[test]
fn crates_depend_on_what_is_below_them() {
    for (name, below, banned) in CRATES {
        let tree = cargo(&[
            "tree",
            "--edges=normal",
            "--prefix=none",
            "--format={lib}",
            "--all-features",
            "--package",
            name,
        ]);
        let tree = tree.replace('_', "-");
        let uses: BTreeSet<_> = tree.lines().collect();
        assert!(uses.contains(name), "{tree}");
        let others = CRATES
            .iter()
            .map(|(other, ..)| other)
            .filter(|other| **other != name && !below.contains(other));
        for other in others.chain(banned).chain(&PROGRAM) {
            assert!(!uses.contains(other), "{name} depends on {other}");
        }
    }
}

#[test]
fn no_dependency_needs_a_newer_rust_than_is_stated() {
    // The first two numbers of it, as `1.88`.
    let version = |package: &Value| -> Option<Vec<u32>> {
        let numbers = package["rust_version"].as_str()?.split('.');
        Some(numbers.take(2).map(|number| number.parse().unwrap()).collect())
    };
    let host = Command::new("rustc").arg("-vV").output().unwrap();
    let host = String::from_utf8(host.stdout).unwrap();
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let metadata = cargo(&["metadata", "--format-version=1", "--filter-platform", host]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let program = packages
        .iter()
        .find(|package| package["name"] == "kata-runtime")
        .unwrap();
    let stated = version(program).unwrap();
    let newer: Vec<_> = packages
        .iter()
        .filter(|package| version(package).is_some_and(|needed| needed > stated))
        .map(|package| {
            format!(
                "{} {} needs {}",
                package["name"], package["version"], package["rust_version"]
            )
        })
        .collect();
    assert!(newer.is_empty(), "newer than {stated:?}: {newer:#?}");
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .arg("--offline")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
