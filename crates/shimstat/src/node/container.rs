//! A container of this node: its bundle, the way to its shim, and what its spec says of it.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::annotations::{PodNames, Role};
use super::bundle::{Bundle, BundleError};
use super::runtime::Runtime;
use super::spec::{CpuSpec, Spec};
use crate::shim::address::Endpoint;

/// A container (containerd's task): a plain one, a pod's sandbox, or a container in a pod.
///
/// Nothing of this changes for as long as the container exists. Its spec is read when something of it is asked for,
/// and once.
#[derive(Debug)]
pub struct Container {
    pub bundle: Bundle,
    /// Where its shim listens, or why that cannot be told.
    pub endpoint: Result<Endpoint, Arc<BundleError>>,
    description: OnceLock<Result<Description, BundleError>>,
}

/// What a container's spec says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// What it is to its pod.
    pub role: Role,
    /// The names that people know it by.
    pub names: PodNames,
    /// The CPU limits that it was created with.
    pub cpu: CpuSpec,
}

/// Stands in for a spec that cannot be read.
static UNKNOWN: Description = Description {
    role: Role::Plain,
    names: PodNames::NONE,
    cpu: CpuSpec::NONE,
};

impl Container {
    /// Reads where the shim of a bundle listens; `None` for a task that is being created or deleted.
    pub fn read(bundle: Bundle) -> Option<Self> {
        let endpoint = match bundle.endpoint() {
            Ok(endpoint) => Ok(endpoint?),
            Err(error) => Err(Arc::new(error)),
        };
        Some(Self {
            bundle,
            endpoint,
            description: OnceLock::new(),
        })
    }

    /// A container of which everything is known already.
    pub fn new(
        bundle: Bundle,
        endpoint: Result<Endpoint, Arc<BundleError>>,
        description: Description,
    ) -> Self {
        Self {
            bundle,
            endpoint,
            description: Ok(description).into(),
        }
    }

    /// The full id.
    pub fn id(&self) -> &str {
        &self.bundle.id
    }

    /// What its spec says of it, or why that cannot be read.
    pub fn description(&self) -> Result<&Description, &BundleError> {
        self.description
            .get_or_init(|| {
                let spec = self.bundle.spec()?;
                Ok(Description::of(&spec, &self.bundle.id))
            })
            .as_ref()
    }

    /// What it is to its pod; [`Role::Plain`] where its spec cannot be read.
    pub fn role(&self) -> &Role {
        &self.known().role
    }

    /// The names that people know it by; none where its spec cannot be read.
    pub fn names(&self) -> &PodNames {
        &self.known().names
    }

    /// The CPU limits that it was created with; none where its spec cannot be read.
    pub fn cpu(&self) -> &CpuSpec {
        &self.known().cpu
    }

    fn known(&self) -> &Description {
        self.description().unwrap_or(&UNKNOWN)
    }

    /// The id of the sandbox that it is or runs in; a plain container has none.
    pub fn sandbox_id(&self) -> Option<&str> {
        match self.role() {
            Role::Plain => None,
            Role::Sandbox => Some(&self.bundle.id),
            Role::InSandbox(id) => Some(id),
        }
    }

    /// Whether it is a pod's sandbox.
    pub fn is_sandbox(&self) -> bool {
        *self.role() == Role::Sandbox
    }

    /// The bundle of its sandbox, or its own where it is in none: its path tells pods apart. A container's sandbox is in
    /// the same namespace of the same containerd. There need not be a bundle at that path.
    pub fn sandbox_bundle(&self) -> Bundle {
        let mut bundle = self.bundle.clone();
        if let Some(sandbox) = self.sandbox_id().filter(|sandbox| *sandbox != bundle.id) {
            bundle.path = bundle.path.parent().unwrap_or(Path::new("/")).join(sandbox);
            bundle.id = sandbox.to_string();
        }
        bundle
    }

    /// The runtime that runs it; `None` where nothing tells. Read anew each time: Kata's shim notes its hypervisor a
    /// moment after the bundle is there.
    pub fn runtime(&self) -> Option<Runtime> {
        Runtime::of(&self.bundle, self.sandbox_id())
    }

    /// `namespace/pod` for a sandbox, `namespace/pod/container` for a container in one; `None` where a part of that
    /// is not known. Untrusted text.
    pub fn name(&self) -> Option<String> {
        let names = self.names();
        let pod = || Some(format!("{}/{}", names.namespace.as_ref()?, names.name.as_ref()?));
        match self.role() {
            Role::Plain => None,
            Role::Sandbox => pod(),
            Role::InSandbox(_) => Some(format!("{}/{}", pod()?, names.container.as_ref()?)),
        }
    }
}

impl Description {
    /// `id` is the container's own.
    fn of(spec: &Spec, id: &str) -> Self {
        Self {
            role: spec.annotations.role(id),
            names: spec.annotations.names(),
            cpu: spec.cpu,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A container at `namespace/id`, with its pod's namespace and name and its own name in it.
    pub fn container(path: &str, role: Role, names: [Option<&str>; 3]) -> Arc<Container> {
        let [pod_namespace, name, container] = names.map(|name| name.map(str::to_string));
        let (namespace, id) = path.split_once('/').unwrap();
        let bundle = Bundle {
            state_dir: "/run/containerd".into(),
            namespace: namespace.into(),
            id: id.into(),
            path: Path::new("/run/containerd/tasks").join(path),
        };
        let names = PodNames {
            namespace: pod_namespace,
            name,
            container,
            ..PodNames::NONE
        };
        let description = Description {
            role,
            names,
            cpu: CpuSpec::NONE,
        };
        let endpoint = Endpoint::from_address_file(&format!("unix:///run/s/{id}")).unwrap();
        Arc::new(Container::new(bundle, Ok(endpoint), description))
    }

    #[test]
    fn a_spec_that_cannot_be_read_leaves_the_container_plain_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = Bundle {
            state_dir: dir.path().into(),
            namespace: "default".into(),
            id: "c1".into(),
            path: dir.path().into(),
        };
        assert!(Container::read(bundle.clone()).is_none(), "it is being created");
        std::fs::write(dir.path().join("address"), "unix:///run/s").unwrap();
        std::fs::write(dir.path().join("config.json"), "{").unwrap();
        let container = Container::read(bundle.clone()).unwrap();
        assert_eq!(container.role(), &Role::Plain);
        let error = container.description().unwrap_err().to_string();
        assert!(error.contains("config.json: not an OCI spec"), "{error}");
        std::fs::write(dir.path().join("bootstrap.json"), "{").unwrap();
        let error = Container::read(bundle).unwrap().endpoint.unwrap_err().to_string();
        assert!(error.contains("bootstrap.json"), "{error}");
    }

    #[test]
    fn containers_are_named_after_their_pod() {
        let within = || Role::InSandbox("s1".into());
        for (role, names, expected) in [
            (
                Role::Sandbox,
                [Some("shop"), Some("web-0"), None],
                Some("shop/web-0"),
            ),
            (
                within(),
                [Some("shop"), Some("web-0"), Some("nginx")],
                Some("shop/web-0/nginx"),
            ),
            (within(), [Some("shop"), Some("web-0"), None], None),
            (within(), [Some("shop"), None, Some("nginx")], None),
            (Role::Plain, [Some("shop"), Some("db"), None], None),
        ] {
            assert_eq!(container("k8s.io/c1", role, names).name().as_deref(), expected);
        }
    }
}
