//! Containers in the order in which people look for them: pods, each with its containers, then the rest.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::annotations::Role;
use super::inventory::Container;

/// A pod: a sandbox and the containers in it, or as much of that as there is.
#[derive(Debug, Clone, Default)]
pub struct Pod {
    pub sandbox: Option<Arc<Container>>,
    /// In the order of their names.
    pub containers: Vec<Arc<Container>>,
}

/// The pods among these containers, in the order of their namespaces and names, and the containers that are in none,
/// in the order of containerd's namespace and id.
pub fn pods(containers: &[Arc<Container>]) -> (Vec<Pod>, Vec<Arc<Container>>) {
    let mut pods: HashMap<_, Pod> = HashMap::new();
    let mut plain = Vec::new();
    for container in containers {
        let Some(sandbox) = container.sandbox_id() else {
            plain.push(container.clone());
            continue;
        };
        // A container's sandbox is in the same namespace of the same containerd.
        let place: Option<&Path> = container.bundle.path.parent();
        let pod = pods.entry((place, sandbox)).or_default();
        match container.role {
            Role::Sandbox => pod.sandbox = Some(container.clone()),
            Role::InSandbox(_) | Role::Plain => pod.containers.push(container.clone()),
        }
    }
    let mut pods: Vec<Pod> = pods.into_values().collect();
    for pod in &mut pods {
        pod.containers.sort_by(|a, b| by_name(a, b));
    }
    pods.sort_by(|a, b| match (a.any(), b.any()) {
        (Some(a), Some(b)) => by_name(a, b),
        (a, b) => a.is_some().cmp(&b.is_some()),
    });
    plain.sort_by(|a, b| by_name(a, b));
    (pods, plain)
}

impl Pod {
    /// The sandbox, or a container of it where that is not among them: their names of the pod are the same.
    pub fn any(&self) -> Option<&Arc<Container>> {
        self.sandbox.as_ref().or_else(|| self.containers.first())
    }

    /// The sandbox, then the containers.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Container>> {
        self.sandbox.iter().chain(&self.containers)
    }
}

fn by_name(a: &Container, b: &Container) -> Ordering {
    let key = |container: &'_ Container| {
        let names = &container.names;
        (
            names.namespace.clone(),
            names.name.clone(),
            names.container.clone(),
            container.bundle.clone(),
        )
    };
    key(a).cmp(&key(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{Bundle, CpuSpec, PodNames};

    fn container(path: &str, role: Role, names: [&str; 3]) -> Arc<Container> {
        let [namespace, name, container] = names.map(|n| (!n.is_empty()).then(|| n.to_string()));
        let (namespace_dir, id) = path.split_once('/').unwrap();
        Arc::new(Container {
            bundle: Bundle {
                state_dir: "/run/containerd".into(),
                namespace: namespace_dir.into(),
                id: id.into(),
                path: Path::new("/run/containerd/tasks").join(path),
            },
            endpoint: Err("none".into()),
            role,
            names: PodNames {
                namespace,
                name,
                container,
                ..PodNames::default()
            },
            cpu: CpuSpec::default(),
        })
    }

    #[test]
    fn pods_come_first_each_with_its_containers() {
        let within = |sandbox: &str| Role::InSandbox(sandbox.into());
        let containers = [
            container("default/plain2", Role::Plain, ["", "", ""]),
            container("k8s.io/a9", within("s1"), ["shop", "web", "nginx"]),
            container("k8s.io/a8", within("s1"), ["shop", "web", "zebra"]),
            container("default/plain1", Role::Plain, ["", "", ""]),
            container("k8s.io/s2", Role::Sandbox, ["test", "web", ""]),
            container("k8s.io/s1", Role::Sandbox, ["shop", "web", ""]),
            container("k8s.io/a7", within("gone"), ["shop", "api", "lost"]),
            // The same sandbox id in another namespace is another pod.
            container("other/a6", within("s1"), ["shop", "web", "stranger"]),
        ];
        let (pods, plain) = pods(&containers);
        let ids = |pod: &Pod| pod.all().map(|c| c.bundle.id.clone()).collect::<Vec<_>>();
        let listed: Vec<_> = pods.iter().map(ids).collect();
        assert_eq!(
            listed,
            [vec!["a7"], vec!["s1", "a9", "a8"], vec!["a6"], vec!["s2"]]
        );
        assert!(pods[0].sandbox.is_none() && pods[1].sandbox.is_some());
        let plain: Vec<_> = plain.iter().map(|c| c.bundle.id.as_str()).collect();
        assert_eq!(plain, ["plain1", "plain2"]);
    }
}
