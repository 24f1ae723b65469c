//! `promtool check metrics`, where it is installed (Debian's package prometheus).

use std::io::Write;
use std::process::{Command, Stdio};

/// Fails if promtool finds an error in the page. Returns its advice on names and helps; without promtool, says that the
/// page was not checked.
pub fn check(page: &[u8]) -> String {
    if !test_needs::can_check_with("promtool") {
        return String::new();
    }
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It reads everything before it writes anything.
    child.stdin.take().unwrap().write_all(page).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // 3: advice only.
    assert!(
        matches!(output.status.code(), Some(0 | 3)),
        "{said}\n{}",
        String::from_utf8_lossy(page)
    );
    said
}
