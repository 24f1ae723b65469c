//! The parts of a task's OCI spec (`config.json`) that are read here; all else in it is skipped.

use serde::Deserialize;

use super::annotations::Annotations;

/// What a task was created from.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Spec {
    /// Who it is in its pod.
    pub annotations: Annotations,
    /// The spec's `linux.cgroupsPath`.
    pub cgroups_path: Option<String>,
    /// Where the network namespace is that the container was put into; `None` for one of its own or the host's.
    pub network_namespace: Option<String>,
}

impl Spec {
    /// Reads a `config.json`.
    pub(crate) fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        let file: File = serde_json::from_slice(json)?;
        let linux = file.linux.unwrap_or_default();
        Ok(Self {
            annotations: file.annotations.unwrap_or_default(),
            cgroups_path: linux.cgroups_path.filter(|path| !path.is_empty()),
            network_namespace: linux
                .namespaces
                .unwrap_or_default()
                .into_iter()
                .find(|namespace| namespace.kind == "network")
                .and_then(|network| network.path)
                .filter(|path| !path.is_empty()),
        })
    }
}

/// Where the mounts of a `config.json` come from.
pub(super) fn mount_sources(json: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        mounts: Vec<Mount>,
    }
    #[derive(Deserialize)]
    struct Mount {
        source: Option<String>,
    }
    let file = serde_json::from_slice::<File>(json);
    file.map_or_else(
        |_| Vec::new(),
        |file| file.mounts.into_iter().filter_map(|mount| mount.source).collect(),
    )
}

/// As the file has it.
#[derive(Deserialize)]
struct File {
    annotations: Option<Annotations>,
    linux: Option<Linux>,
}

#[derive(Deserialize, Default)]
struct Linux {
    #[serde(rename = "cgroupsPath")]
    cgroups_path: Option<String>,
    namespaces: Option<Vec<Namespace>>,
}

#[derive(Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    path: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_set_where_the_spec_says_nothing() {
        for json in [
            "{}",
            r#"{"linux":null,"annotations":null}"#,
            r#"{"linux":{"resources":null}}"#,
            r#"{"linux":{"cgroupsPath":""}}"#,
        ] {
            assert_eq!(
                Spec::from_json(json.as_bytes()).unwrap(),
                Spec::default(),
                "{json}"
            );
        }
    }

    #[test]
    fn reads_the_spec_of_a_recorded_kata_container() {
        let child = include_bytes!("../../tests/fixtures/kata-3.30-go/bundle-child/config.json");
        let spec = Spec::from_json(child).unwrap();
        assert_eq!(spec.annotations.names().container.as_deref(), Some("app"));
        let path = "/kubepods/pod1/f15bfda5d303cc9fdea4b6ec555ecddb626125b3c4982b98edb71b9b9ba39e3c";
        assert_eq!(spec.cgroups_path.as_deref(), Some(path));
        assert_eq!(spec.network_namespace.as_deref(), Some("/proc/4786/ns/net"));
    }

    #[test]
    fn reads_where_the_mounts_of_a_recorded_container_come_from() {
        let spec = include_bytes!("../../tests/fixtures/kata-3.30-go/bundle-child/config.json");
        let sources = mount_sources(spec);
        assert!(sources.iter().any(|source| source == "proc"), "{sources:?}");
        assert_eq!(
            sources.len(),
            spec.windows(9).filter(|word| word == b"\"source\":").count()
        );
        assert!(mount_sources(b"{\"mounts\": null}").is_empty());
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Spec::from_json(&bytes);
            let _ = mount_sources(&bytes);
        }
    }
}
