//! Docker's name of a container, which is in Docker's own files and not in the bundle.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::bundle::Bundle;
use super::files;

/// Docker's usual data roots: its own, and its snap's.
const DATA_ROOTS: [&str; 2] = ["/var/lib/docker", "/var/snap/docker/common/var-lib-docker"];

/// A spec or a container's configuration has some 10 KB.
const FILE_LIMIT: u64 = 4 << 20;

/// The name of a container, from `<data root>/containers/<id>/config.v2.json`
/// (<https://github.com/moby/moby/blob/master/daemon/container/container.go>); `None` where that cannot be read. Where
/// the data root is not a usual one, a mount of the container leads there: its `/etc/hostname` is a file of that directory.
pub(super) fn name(bundle: &Bundle) -> Option<String> {
    let usual = DATA_ROOTS.map(|root| Path::new(root).join("containers").join(&bundle.id));
    usual
        .iter()
        .find_map(|directory| name_in(directory))
        .or_else(|| name_in(&by_mounts(bundle)?))
}

fn name_in(directory: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Configuration {
        #[serde(rename = "Name")]
        name: String,
    }
    let json = files::read(&directory.join("config.v2.json"), FILE_LIMIT).ok()?;
    let Configuration { name } = serde_json::from_slice(&json).ok()?;
    // Docker has a slash before it.
    let name = name.strip_prefix('/').unwrap_or(&name);
    (!name.is_empty()).then(|| name.to_string())
}

fn by_mounts(bundle: &Bundle) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Spec {
        mounts: Vec<Mount>,
    }
    #[derive(Deserialize)]
    struct Mount {
        destination: String,
        #[serde(default)]
        source: String,
    }
    let json = files::read(&bundle.path.join("config.json"), FILE_LIMIT).ok()?;
    let spec: Spec = serde_json::from_slice(&json).ok()?;
    let hostname = spec
        .mounts
        .into_iter()
        .find(|mount| mount.destination == "/etc/hostname")?;
    let directory = Path::new(&hostname.source).parent()?;
    (directory.file_name()? == bundle.id.as_str()).then(|| directory.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_mount_leads_to_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let id = "5779b2366f47";
        let (bundle, own) = (
            dir.path().join("bundle"),
            dir.path().join("data/containers").join(id),
        );
        fs::create_dir_all(&bundle).unwrap();
        fs::create_dir_all(&own).unwrap();
        let name = |configuration: &str, hostname: &Path| {
            fs::write(own.join("config.v2.json"), configuration).unwrap();
            let mounts = serde_json::json!({"mounts": [
                {"destination": "/proc", "type": "proc"},
                {"destination": "/etc/hostname", "source": hostname},
            ]});
            fs::write(bundle.join("config.json"), mounts.to_string()).unwrap();
            name(&Bundle::of_task("moby", id, bundle.clone()))
        };
        let hostname = own.join("hostname");
        let named = r#"{"State":{"Running":true},"Name":"/kind_hopper","ID":"5779b2366f47"}"#;
        assert_eq!(name(named, &hostname).as_deref(), Some("kind_hopper"));
        assert_eq!(name(r#"{"Name":"/"}"#, &hostname), None);
        assert_eq!(name("{", &hostname), None);
        assert_eq!(
            name(named, Path::new("/etc/hostname")),
            None,
            "a mount of the user's"
        );
    }
}
