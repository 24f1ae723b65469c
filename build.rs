//! Notes the commit that the binary is built from, for `--version`, and has the binary linked so that it runs on any
//! node and starts quickly.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

fn main() {
    note_commit();
    if link_statically().is_none() {
        println!(
            "cargo:warning=no static C library was found: the binary will need this machine's, and start slower"
        );
    }
}

/// As a static PIE. With the C library in it the binary runs on nodes of any distribution, as those of Go do
/// (containerd, runc, Kata's own kata-runtime), and there is nothing to find, map and bind at each start: a fifth of
/// what `events --stats` takes. It listens as root, so its addresses are not to be guessed. That costs nothing that
/// can be measured where the pointers to mend at each start are packed: of 800 runs the fastest tenth took 2.15 ms,
/// 2.16 ms at a fixed address, 2.29 ms with pointers that are not packed (which also take 290 KB), 1.42 ms in C.
///
/// Rust's own `crt-static` cannot be set for one binary alone, and procedural macros do not build with it: this is
/// what it does to the linker's command line. `None` where the library is not there to link with.
fn link_statically() -> Option<()> {
    let is = |key: &str, value: &str| env::var(key).is_ok_and(|one| one == value);
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    let is_static = features.split(',').any(|feature| feature == "crt-static");
    if is_static || !is("CARGO_CFG_TARGET_OS", "linux") || !is("CARGO_CFG_TARGET_ENV", "gnu") {
        // Rust does it by itself, as for musl.
        return Some(());
    }
    let linker = match env::var("RUSTC_LINKER") {
        Ok(linker) => linker,
        Err(_) if env::var("HOST") == env::var("TARGET") => "cc".to_string(),
        Err(_) => return None,
    };
    let find = |archive: &str| {
        let path = PathBuf::from(output(&linker, &[&format!("-print-file-name={archive}")])?);
        path.is_absolute().then(|| path.display().to_string())
    };
    find("rcrt1.o")?;
    let [c, m, gcc, unwinder] = ["libc.a", "libm.a", "libgcc.a", "libgcc_eh.a"].map(find);
    let c_library = format!("GROUP({} {} {})", c?, unwinder.as_ref()?, gcc?);
    let dir = PathBuf::from(env::var_os("OUT_DIR")?);
    // rustc asks for shared libraries by name; the linker looks for them here first.
    let write = |name: &str, script: &str| -> io::Result<()> { fs::write(dir.join(name), script) };
    write("libc.so", &c_library).ok()?;
    write("libm.so", &format!("INPUT({})", m?)).ok()?;
    write("libgcc_s.so", &format!("INPUT({})", unwinder?)).ok()?;
    for argument in ["-static-pie", &format!("-L{}", dir.display())] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    if unpacks_pointers(&linker) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    Some(())
}

/// Whether the C library can start a program whose pointers are packed: glibc since 2.36.
fn unpacks_pointers(compiler: &str) -> bool {
    let macros = output(
        compiler,
        &["-E", "-dM", "-include", "features.h", "-x", "c", "/dev/null"],
    );
    let number = |name: &str| -> Option<u32> {
        let line = macros
            .as_ref()?
            .lines()
            .find_map(|line| line.strip_prefix("#define ")?.strip_prefix(name))?;
        line.trim().parse().ok()
    };
    (number("__GLIBC__ "), number("__GLIBC_MINOR__ ")) >= (Some(2), Some(36))
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
