//! The labels that name a container: the kubelet's.

use shimstat::node::{Container, Role};

/// The labels of a container's samples. Those that are empty are left out, which is the same to Prometheus.
///
/// `id` is the container's id, where cAdvisor has the path of a cgroup: a container in a guest has none on this machine.
/// A sandbox's own container has neither `container`, as the kubelet has it with containerd, nor `image`: dashboards
/// leave it out by either of the two (kubernetes-mixin by `container!=""`, by `image!=""`, or by both).
pub fn labels(container: &Container) -> impl Iterator<Item = (&'static str, &str)> {
    let names = container.names();
    let id = container.id();
    let is_sandbox = container.is_sandbox();
    // The same id may be there in several of containerd's namespaces, except that of a pod: all pods are in one.
    let namespace = (*container.role() == Role::Plain).then_some(container.bundle.namespace.as_str());
    let all = [
        ("container", names.container.as_deref().filter(|_| !is_sandbox)),
        ("containerd_namespace", namespace),
        ("id", Some(id)),
        ("image", names.image.as_deref().filter(|_| !is_sandbox)),
        ("name", Some(names.own.as_deref().unwrap_or(id))),
        ("namespace", names.namespace.as_deref()),
        ("pod", names.name.as_deref()),
    ];
    all.into_iter()
        .filter_map(|(key, value)| Some((key, value.filter(|value| !value.is_empty())?)))
}
