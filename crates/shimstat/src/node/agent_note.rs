//! Where the agent of a Kata sandbox listens, as the Go shim has noted it beside its monitor's socket.
//!
//! It is what the monitor answers to `GET /agent-url`, without asking (Kata 4.1.0,
//! `src/runtime/virtcontainers/persist/api/sandbox.go`, `AgentState`). The Rust shim does not note it.

use std::path::Path;

use serde::Deserialize;

use super::files;
use super::id::Id;
use super::monitor::GO_ROOT;

/// The longest file that is read. A pod with many containers has some 100 KB.
const LIMIT: u64 = 4 << 20;

#[derive(Deserialize)]
struct NotedSandbox {
    #[serde(rename = "AgentState")]
    agent: Option<AgentState>,
}

#[derive(Deserialize)]
struct AgentState {
    #[serde(rename = "URL")]
    url: Option<String>,
}

/// The address of the agent in the sandbox `id`, where it is noted. It may be that of an earlier sandbox.
pub fn noted_agent(id: &str) -> Option<String> {
    // It may come from an annotation, and becomes part of a path here.
    let id = Id::parse(id).ok()?;
    noted_in(&Path::new(GO_ROOT).join(id.as_str()).join("persist.json"))
}

fn noted_in(file: &Path) -> Option<String> {
    let json = files::read(file, LIMIT).ok()?;
    let sandbox: NotedSandbox = serde_json::from_slice(&json).ok()?;
    sandbox.agent?.url.filter(|url| !url.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_go_shim_notes_it() {
        let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kata-4.1-go/persist.json");
        let id = "3088681c97850785a2776c7b4575910a3c91545567c9c97d78c240177f524945";
        assert_eq!(
            noted_in(&recorded),
            Some(format!("hvsock:///run/vc/vm/{id}/kata.hvsock:1024"))
        );
    }

    #[test]
    fn what_is_no_note_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("persist.json");
        assert_eq!(noted_in(&file), None);
        for text in [
            "",
            "{",
            "{}",
            r#"{"AgentState":null}"#,
            r#"{"AgentState":{"URL":""}}"#,
            r#"{"AgentState":{"URL":7}}"#,
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(noted_in(&file), None, "{text}");
        }
        for id in ["", "..", "a/b"] {
            assert_eq!(noted_agent(id), None, "{id}");
        }
    }
}
