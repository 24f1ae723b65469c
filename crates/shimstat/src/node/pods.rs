//! Pods: which containers share a sandbox, and so a network and, under most runtimes, a shim.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::annotations::{PodNames, Role};
use super::container::Container;
use crate::shim::address::Address;

/// A sandbox and the containers in it, or as much of that as there is. A container that is in no sandbox is a pod of
/// its own.
#[derive(Debug, Clone)]
pub struct Pod {
    /// The sandbox's id; that of the container where it is in no sandbox.
    pub id: String,
    /// Tells it from every other pod, those of other containerds too: the path of the sandbox's bundle, whether there
    /// is one or not. Of a sandbox that containerd does not know, the directory of its monitor's socket.
    pub key: PathBuf,
    /// The container that is the sandbox. `None`: containerd does not know it, or a container is in no sandbox.
    pub sandbox: Option<Arc<Container>>,
    /// In the order of their names.
    pub containers: Vec<Arc<Container>>,
    /// Where the sandbox's monitor may listen, best first; empty also where that was not looked for
    /// (see [`Inventory::pods`](super::Inventory::pods)).
    pub monitor: Vec<Address>,
}

/// The pods that these containers make: those with a sandbox first, in the order of their namespaces and names, then
/// the containers that are in none, in the order of containerd's namespace and id.
pub fn pods(containers: &[Arc<Container>]) -> Vec<Pod> {
    name_sandboxes(containers);
    let mut pods: HashMap<PathBuf, Pod> = HashMap::with_capacity(containers.len());
    for container in containers {
        let pod = pods
            .entry(container.sandbox_bundle().path)
            .or_insert_with_key(|key| Pod {
                id: container.sandbox_id().unwrap_or(container.id()).to_string(),
                key: key.clone(),
                sandbox: None,
                containers: Vec::new(),
                monitor: Vec::new(),
            });
        match container.role() {
            Role::Sandbox => pod.sandbox = Some(container.clone()),
            Role::InSandbox(_) | Role::Plain => pod.containers.push(container.clone()),
        }
    }
    let mut pods: Vec<Pod> = pods.into_values().collect();
    for pod in &mut pods {
        pod.containers.sort_by(|a, b| by_name(a, b));
    }
    pods.sort_by(|a, b| {
        let order = |pod: &Pod| pod.is_plain();
        order(a)
            .cmp(&order(b))
            .then_with(|| match (a.first(), b.first()) {
                (Some(a), Some(b)) => by_name(a, b),
                (a, b) => a.is_some().cmp(&b.is_some()),
            })
    });
    pods
}

/// Gives sandboxes that have no spec the names of their pods, as far as their containers know them. Costs nothing where
/// there are no such sandboxes, which is on most nodes.
pub fn name_sandboxes<C: AsRef<Container>>(containers: &[C]) {
    let nameless = || {
        containers
            .iter()
            .map(AsRef::as_ref)
            .filter(|one| one.lacks_names())
    };
    if nameless().next().is_none() {
        return;
    }
    let names: HashMap<_, _> = containers
        .iter()
        .map(AsRef::as_ref)
        .filter(|container| !container.is_sandbox() && container.names().name.is_some())
        .map(|container| (container.sandbox_bundle().path, container.names()))
        .collect();
    for sandbox in nameless() {
        if let Some(names) = names.get(&sandbox.sandbox_bundle().path) {
            sandbox.take_names(names);
        }
    }
}

impl Pod {
    /// A sandbox that containerd does not know: no more is there of it than its monitor's socket.
    pub fn unknown_to_containerd(id: String, monitor: Vec<Address>) -> Self {
        let directory = monitor.iter().find_map(|address| match address {
            Address::Path(path) => path.parent().map(PathBuf::from),
            Address::Abstract(_) | Address::Vsock { .. } | Address::Hybrid { .. } => None,
        });
        Self {
            key: directory.unwrap_or_else(|| PathBuf::from(&id)),
            id,
            sandbox: None,
            containers: Vec::new(),
            monitor,
        }
    }

    /// Whether it is a container that is in no sandbox.
    pub fn is_plain(&self) -> bool {
        self.sandbox.is_none()
            && self
                .containers
                .iter()
                .all(|container| *container.role() == Role::Plain)
            && !self.containers.is_empty()
    }

    /// The sandbox, then the containers.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Container>> {
        self.sandbox.iter().chain(&self.containers)
    }

    /// The sandbox, or a container of it where that is not known: the pod's names are the same in both.
    pub fn first(&self) -> Option<&Arc<Container>> {
        self.all().next()
    }

    /// The container whose task is the sandbox itself: the sandbox, or a container that is in none.
    pub fn main(&self) -> Option<&Arc<Container>> {
        self.first().filter(|container| container.id() == self.id)
    }

    /// Whether it is the same pod with the same containers, read a moment before or after.
    pub fn is_unchanged(&self, before: &Self) -> bool {
        self.key == before.key
            && self.monitor == before.monitor
            && self.all().count() == before.all().count()
            && self
                .all()
                .zip(before.all())
                .all(|(new, old)| Arc::ptr_eq(new, old))
    }

    /// The pod's names; none where no container of it is known.
    pub fn names(&self) -> &PodNames {
        static NONE: PodNames = PodNames::NONE;
        self.first().map_or(&NONE, |container| container.names())
    }
}

fn by_name(a: &Container, b: &Container) -> Ordering {
    fn key(container: &Container) -> impl Ord {
        let names = container.names();
        (&names.namespace, &names.name, &names.container, &container.bundle)
    }
    key(a).cmp(&key(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::container::tests::container;

    fn named(path: &str, role: Role, names: [&str; 3]) -> Arc<Container> {
        container(
            path,
            role,
            names.map(|name| Some(name).filter(|name| !name.is_empty())),
        )
    }

    #[test]
    fn pods_come_first_each_with_its_containers() {
        let within = |sandbox: &str| Role::InSandbox(sandbox.into());
        let containers = [
            named("default/plain2", Role::Plain, ["", "", ""]),
            named("k8s.io/a9", within("s1"), ["shop", "web", "nginx"]),
            named("k8s.io/a8", within("s1"), ["shop", "web", "zebra"]),
            named("default/plain1", Role::Plain, ["", "", ""]),
            named("k8s.io/s2", Role::Sandbox, ["test", "web", ""]),
            named("k8s.io/s1", Role::Sandbox, ["shop", "web", ""]),
            named("k8s.io/a7", within("gone"), ["shop", "api", "lost"]),
            // The same sandbox id in another namespace is another pod.
            named("other/a6", within("s1"), ["shop", "web", "stranger"]),
        ];
        let pods = pods(&containers);
        let ids = |pod: &Pod| pod.all().map(|c| c.id().to_string()).collect::<Vec<_>>();
        let listed: Vec<_> = pods.iter().map(ids).collect();
        assert_eq!(
            listed,
            [
                vec!["a7"],
                vec!["s1", "a9", "a8"],
                vec!["a6"],
                vec!["s2"],
                vec!["plain1"],
                vec!["plain2"]
            ]
        );
        let plain: Vec<_> = pods.iter().map(Pod::is_plain).collect();
        assert_eq!(plain, [false, false, false, false, true, true]);
        let main: Vec<_> = pods.iter().map(|pod| pod.main().map(|c| c.id())).collect();
        assert_eq!(
            main,
            [None, Some("s1"), None, Some("s2"), Some("plain1"), Some("plain2")]
        );
        assert_eq!((pods[0].id.as_str(), pods[2].id.as_str()), ("gone", "s1"));
        assert_ne!(pods[1].key, pods[2].key);
    }

    #[test]
    fn a_sandbox_unknown_to_containerd_is_its_monitor_alone() {
        let socket = Address::Path("/run/vc/sbs/s9/shim-monitor.sock".into());
        let pod = Pod::unknown_to_containerd("s9".into(), vec![socket]);
        assert_eq!(pod.key, PathBuf::from("/run/vc/sbs/s9"));
        assert!(pod.first().is_none() && !pod.is_plain());
        assert_eq!(pod.names(), &PodNames::NONE);
    }
}
