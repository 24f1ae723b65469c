//! What is on the node, as candidates.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use shimstat::node::{Container, Node, Role, Wanted, name_sandboxes};

use super::candidate::Candidate;
use crate::show::name::short_id;

/// Somebody is waiting at a prompt: what has not been read by then is not offered.
const PATIENCE: Duration = Duration::from_secs(1);

/// The containers that can be named.
pub struct OnNode {
    containers: Vec<Container>,
}

impl OnNode {
    pub fn of(node: &Node) -> Self {
        let started = Instant::now();
        let bundles = node.bundles().unwrap_or_default();
        let containers: Vec<_> = bundles
            .into_iter()
            .take_while(|_| started.elapsed() < PATIENCE)
            .filter_map(Container::read)
            .collect();
        name_sandboxes(&containers);
        Self { containers }
    }

    /// The values for an argument, by its id; `typed` is what has been typed of it. Text from pods is dropped here unless
    /// Kubernetes would accept it as a name: nothing in such a name means anything to a shell.
    pub fn values(&self, argument: &str, typed: &str) -> Vec<Candidate> {
        let mut values = match argument {
            "containers" | "sandbox" => self.subjects(typed),
            "namespace" => self.each(|c| Some(c.bundle.namespace.clone()), "containerd's namespace"),
            "pod_namespace" => self.each(|c| c.names().namespace.clone(), "namespace"),
            "pod" => self.each(|c| c.names().name.clone(), "pod"),
            "runtime" => self.each(|c| Some(c.runtime()?.name), "runtime"),
            _ => Vec::new(),
        };
        values.retain(|candidate| Wanted::parse(&candidate.word).is_ok());
        values
    }

    fn each(&self, value: impl Fn(&Container) -> Option<String>, about: &str) -> Vec<Candidate> {
        let values: BTreeSet<_> = self.containers.iter().filter_map(value).collect();
        values
            .into_iter()
            .map(|value| Candidate::new(value, about))
            .collect()
    }

    /// The names of containers, and the ids of those without one. Once something has been typed, also all ids and the
    /// names of pods without their namespace, if only one pod has that name.
    fn subjects(&self, typed: &str) -> Vec<Candidate> {
        let mut found = BTreeMap::new();
        let mut alone: BTreeMap<&str, Vec<&Container>> = BTreeMap::new();
        for container in &self.containers {
            let id = &container.bundle.id;
            let name = container.name().filter(|name| Wanted::parse(name).is_ok());
            if name.is_none() || (!typed.is_empty() && id.starts_with(typed)) {
                let about = name.clone().unwrap_or_else(|| container.bundle.namespace.clone());
                found.insert(id.clone(), about);
            }
            if let Some(name) = name {
                found.insert(name, short_id(id).to_string());
            }
            if let (Role::Sandbox, Some(pod), false) =
                (container.role(), &container.names().name, typed.is_empty())
            {
                alone.entry(pod).or_default().push(container);
            }
        }
        for (pod, sandboxes) in alone {
            if let [sandbox] = sandboxes.as_slice() {
                found
                    .entry(pod.to_string())
                    .or_insert_with(|| short_id(sandbox.id()).to_string());
            }
        }
        found
            .into_iter()
            .map(|(word, about)| Candidate::new(word, about))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn node() -> (tempfile::TempDir, OnNode) {
        let dir = tempfile::tempdir().unwrap();
        let pod = |role: &str, namespace: &str, name: &str, container: &str| {
            serde_json::json!({"annotations": {
                "io.kubernetes.cri.container-type": role,
                "io.kubernetes.cri.sandbox-id": "5a",
                "io.kubernetes.cri.sandbox-namespace": namespace,
                "io.kubernetes.cri.sandbox-name": name,
                "io.kubernetes.cri.container-name": container,
            }})
        };
        for (bundle, spec) in [
            ("k8s.io/5a", pod("sandbox", "shop", "web", "")),
            ("k8s.io/7b", pod("container", "shop", "web", "nginx")),
            ("k8s.io/5c", pod("sandbox", "test", "web", "")),
            ("k8s.io/5d", pod("sandbox", "test", "db", "")),
            ("k8s.io/5e", pod("sandbox", "te$(reboot)st", "x;reboot", "")),
            ("default/plain", serde_json::json!({})),
        ] {
            let path = dir.path().join("io.containerd.runtime.v2.task").join(bundle);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("config.json"), spec.to_string()).unwrap();
            fs::write(path.join("address"), "unix:///run/s").unwrap();
            fs::write(path.join("shim-binary-path"), "/bin/containerd-shim-kata-v2").unwrap();
        }
        let node = OnNode::of(&Node::new(vec![dir.path().into()], None));
        (dir, node)
    }

    fn words(node: &OnNode, argument: &str, typed: &str) -> Vec<String> {
        let mut values = node.values(argument, typed);
        values.retain(|candidate| candidate.word.starts_with(typed));
        values.into_iter().map(|candidate| candidate.word).collect()
    }

    #[test]
    fn names_are_offered_first_and_ids_where_one_is_typed() {
        let (_dir, node) = node();
        let named = ["5e", "plain", "shop/web", "shop/web/nginx", "test/db", "test/web"];
        assert_eq!(words(&node, "containers", ""), named);
        assert_eq!(words(&node, "containers", "5"), ["5a", "5c", "5d", "5e"]);
        assert_eq!(words(&node, "sandbox", "shop/"), ["shop/web", "shop/web/nginx"]);
        assert_eq!(words(&node, "containers", "d"), ["db"]);
        assert!(
            words(&node, "containers", "w").is_empty(),
            "two pods are called web"
        );
    }

    #[test]
    fn filters_have_values_and_nothing_hostile_is_one() {
        let (_dir, node) = node();
        assert_eq!(words(&node, "namespace", ""), ["default", "k8s.io"]);
        assert_eq!(words(&node, "pod_namespace", ""), ["shop", "test"]);
        assert_eq!(words(&node, "pod", ""), ["db", "web"]);
        assert_eq!(words(&node, "runtime", ""), ["kata"]);
        assert!(words(&node, "interval", "").is_empty());
    }
}
