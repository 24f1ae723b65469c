//! Notes the commit that the binary is built from, for `--version`.

use std::path::Path;
use std::process::Command;

fn main() {
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
    let output = Command::new("git")
        .args(arguments)
        .output()
        .ok()
        .filter(|o| o.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string()).filter(|text| !text.is_empty())
}
