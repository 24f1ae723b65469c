//! Notes the commit that the binary is built from, for `--version`, and has the linker make a program that starts
//! quickly: one question is one process, and most of its time is starting.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    note_commit();
    let target = |key| env::var(format!("CARGO_CFG_TARGET_{key}")).unwrap_or_default();
    if target("OS") == "linux" && target("ENV") == "gnu" {
        start_quickly();
    }
}

/// Saves what the dynamic linker would do before `main`: a tenth of what `events --stats` takes.
fn start_quickly() {
    // At a fixed address, as Go's programs are (containerd, runc and kata-runtime itself): tables of pointers need
    // not be mended, 200 KB of them copied for it, at each start. Heap, stack and libraries still move.
    println!("cargo:rustc-link-arg-bins=-no-pie");
    // The unwinder, which only a backtrace needs, from the compiler's archive instead of a shared library that has
    // to be found, mapped and bound. The linker looks here first for what rustc calls gcc_s.
    let archive = output("cc", &["-print-file-name=libgcc_eh.a"]).map(PathBuf::from);
    if archive.is_some_and(|archive| archive.is_absolute())
        && let Some(dir) = env::var_os("OUT_DIR").map(PathBuf::from)
        && fs::write(dir.join("libgcc_s.so"), "INPUT(-lgcc_eh -lgcc)\n").is_ok()
    {
        println!("cargo:rustc-link-search=native={}", dir.display());
    }
}

fn note_commit() {
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_string());
    println!("cargo:rustc-env=KATA_RUNTIME_COMMIT={commit}");
    println!("cargo:rerun-if-changed=build.rs");
    // The commit changes with HEAD, with the branch that it names, and with packed refs.
    let watched = ["HEAD", "packed-refs"]
        .map(str::to_string)
        .into_iter()
        .chain(git(&["symbolic-ref", "HEAD"]));
    for name in watched {
        // A path that is not there would count as changed at every build.
        if let Some(path) = git(&["rev-parse", "--git-path", &name]).filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
}

/// What git answers; `None` where there is no git or no checkout (a package from a registry).
fn git(arguments: &[&str]) -> Option<String> {
    output("git", arguments)
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_string();
    (output.status.success() && !text.is_empty()).then_some(text)
}
