//! Containers for tests.

use std::sync::Arc;

use shimstat::node::{Bundle, Container, Description, Layout, PodNames, Role, Source};
use shimstat::shim::address::Endpoint;

/// A container in the namespace `k8s.io`, whose spec says this of it.
pub fn container(id: &str, role: Role, names: PodNames) -> Arc<Container> {
    let bundle = Bundle {
        state_dir: "/run/containerd".into(),
        namespace: "k8s.io".into(),
        id: id.into(),
        path: format!("/run/x/{id}").into(),
        layout: Layout::Task,
    };
    let endpoint = Endpoint::from_address_file("unix:///run/s").unwrap();
    let description = Description {
        role,
        names,
        ..Description::default()
    };
    Arc::new(Container::new(bundle, Ok(Source::Task(endpoint)), description))
}
