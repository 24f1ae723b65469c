//! What the benchmarks of whole processes have in common: running programs in turns, a private containerd, and the
//! programs in C that ours are measured by.

#![allow(dead_code, unused_imports)] // Each benchmark uses part of it.

mod containerd;
mod process;

use std::path::{Path, PathBuf};
use std::process::Command;

pub use containerd::Containerd;
pub use process::{Program, in_turns};

/// The program under test.
pub const KATA_RUNTIME: &str = env!("CARGO_BIN_EXE_kata-runtime");

/// Whether this is `cargo bench`: `cargo test --benches` wants to see that it runs, no more.
pub fn is_wanted() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// The one in the middle.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Whether a program is on `PATH`.
pub fn is_installed(program: &str) -> bool {
    find(program).is_some()
}

fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|directory| directory.join(program))
        .find(|path| path.exists())
}

/// Where a program on `PATH` is.
pub fn which(program: &str) -> PathBuf {
    find(program)
        .unwrap_or_else(|| panic!("{program} is not installed: tests/run.sh installs what is needed"))
}

/// Builds another package of the workspace in release mode, and says where its program is.
pub fn build(package: &str, program: &str) -> PathBuf {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "--quiet", "--package", package])
        .status()
        .expect("cargo runs");
    assert!(built.success(), "{package} does not build");
    Path::new(KATA_RUNTIME).with_file_name(program)
}

/// Compiles one of the baselines (`benches/<name>.c`) into a directory, and says where it is.
pub fn compile(name: &str, directory: &Path) -> String {
    let program = directory.join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("benches/{name}.c"));
    let compiler = Command::new("cc")
        .args(["-O2", "-Wall", "-Wextra", "-o"])
        .args([&program, &source])
        .status()
        .unwrap();
    assert!(compiler.success(), "{} does not compile", source.display());
    program.to_str().unwrap().to_string()
}
