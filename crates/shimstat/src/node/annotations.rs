//! What the annotations of an OCI spec say of a container: sandbox or container in one, and the pod's names.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};

/// What a bundle's container is to its pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Role {
    /// A container that no pod manager made (`ctr run`, Docker).
    #[default]
    Plain,
    /// The sandbox of a pod.
    Sandbox,
    /// A container in the sandbox of that id.
    InSandbox(String),
}

/// The names that people know a container by, as the manager wrote them: untrusted text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodNames {
    /// The pod's Kubernetes namespace.
    pub namespace: Option<String>,
    /// The pod's name, without its namespace.
    pub name: Option<String>,
    /// The pod's Kubernetes UID, as the manager wrote it.
    pub uid: Option<String>,
    /// The container's name in its pod; a sandbox has none.
    pub container: Option<String>,
    /// The image that it was made from, where the manager says so.
    pub image: Option<String>,
    /// The name of a container that is in no pod: nerdctl's, Docker's, podman's.
    pub own: Option<String>,
}

impl PodNames {
    /// No name is known.
    pub const NONE: Self = Self {
        namespace: None,
        name: None,
        uid: None,
        container: None,
        image: None,
        own: None,
    };

    /// `namespace/name` of the pod, or as much of that as is known. Untrusted text.
    pub fn pod(&self) -> Option<String> {
        let name = self.name.as_ref()?;
        Some(match &self.namespace {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.clone(),
        })
    }
}

/// A manager's annotation keys.
struct Keys {
    role: &'static str,
    sandbox_id: &'static str,
    sandbox_word: &'static str,
}

const CRIO_ROLE: &str = "io.kubernetes.cri-o.ContainerType";
const CONTAINER_WORD: &str = "container";

/// containerd's CRI and iSulad; CRI-O; the Docker shim.
const MANAGERS: [Keys; 3] = [
    Keys {
        role: "io.kubernetes.cri.container-type",
        sandbox_id: "io.kubernetes.cri.sandbox-id",
        sandbox_word: "sandbox",
    },
    Keys {
        role: CRIO_ROLE,
        sandbox_id: "io.kubernetes.cri-o.SandboxID",
        sandbox_word: "sandbox",
    },
    Keys {
        role: "io.kubernetes.docker.type",
        sandbox_id: "io.kubernetes.sandbox.id",
        sandbox_word: "podsandbox",
    },
];

/// Keys of the pod's namespace, name and uid and the container's name: containerd's CRI, then CRI-O and the
/// kubelet's labels.
const NAMES: [[&str; 2]; 4] = [
    [
        "io.kubernetes.cri.sandbox-namespace",
        "io.kubernetes.pod.namespace",
    ],
    ["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"],
    ["io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"],
    ["io.kubernetes.cri.container-name", "io.kubernetes.container.name"],
];

/// Keys of the image: containerd's CRI for containers and (since 2.0) for sandboxes; CRI-O.
const IMAGE: [&str; 3] = [
    "io.kubernetes.cri.image-name",
    "io.kubernetes.cri.podsandbox.image-name",
    "io.kubernetes.cri-o.ImageName",
];

/// nerdctl's name of a container (<https://github.com/containerd/nerdctl/blob/main/pkg/labels/labels.go>).
const OWN: &str = "nerdctl/name";

/// The handler of a sandbox's runtime class: containerd's CRI since 2.0, CRI-O.
const HANDLER: [&str; 2] = [
    "io.containerd.cri.runtime-handler",
    "io.kubernetes.cri-o.RuntimeHandler",
];

/// CRI-O's own names, of which it makes one text: `k8s_<pod>_<namespace>_<uid>_<attempt>`, and for a container
/// `k8s_<container>_<pod>_<namespace>_<uid>_<attempt>`
/// (<https://github.com/cri-o/cri-o/blob/main/internal/factory/container/container.go>). A Kubernetes name has no `_`.
const CRIO_POD: &str = "io.kubernetes.cri-o.SandboxName";
const CRIO_NAME: &str = "io.kubernetes.cri-o.Name";

/// Annotation values longer than this are not names or ids.
const MAX_VALUE: usize = 4096;

/// The annotations of an OCI spec that this crate knows; all others are skipped as they are read.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Annotations(HashMap<&'static str, String>);

impl Annotations {
    fn get(&self, key: &str) -> Option<&str> {
        self.0
            .get(key)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// What this container is to its pod. `id` is its own: a sandbox may name itself as its sandbox.
    pub(crate) fn role(&self, id: &str) -> Role {
        for keys in &MANAGERS {
            match self.get(keys.role) {
                Some(word) if word == keys.sandbox_word => return Role::Sandbox,
                Some(CONTAINER_WORD) => {
                    return match self.get(keys.sandbox_id) {
                        Some(sandbox) if sandbox != id => Role::InSandbox(sandbox.to_string()),
                        _ => Role::Plain,
                    };
                }
                _ => {}
            }
        }
        Role::Plain
    }

    pub(crate) fn names(&self) -> PodNames {
        let first = |keys: &[&str]| keys.iter().find_map(|key| self.get(key)).map(str::to_string);
        let [namespace, name, uid, container] = NAMES.map(|keys| first(&keys));
        let mut names = PodNames {
            namespace,
            name,
            uid,
            container,
            image: first(&IMAGE),
            own: first(&[OWN]),
        };
        self.add_crio_names(&mut names);
        names
    }

    /// The kubelet's labels are on every sandbox of CRI-O, and on containers only where somebody set them.
    fn add_crio_names(&self, names: &mut PodNames) {
        let parts = |key| self.get(key).map(|text| text.split('_').collect::<Vec<_>>());
        if let Some(["k8s", name, namespace, uid, _attempt]) = parts(CRIO_POD).as_deref() {
            for (known, part) in [
                (&mut names.name, name),
                (&mut names.namespace, namespace),
                (&mut names.uid, uid),
            ] {
                known.get_or_insert_with(|| part.to_string());
            }
        }
        match self.get(CRIO_ROLE) {
            // It calls the sandbox's own container `POD`.
            Some("sandbox") => names.container = None,
            Some(CONTAINER_WORD) => {
                if let Some(["k8s", container, _pod, _namespace, _uid, _attempt]) =
                    parts(CRIO_NAME).as_deref()
                {
                    names.container.get_or_insert_with(|| container.to_string());
                }
            }
            _ => {}
        }
    }

    /// The handler of the sandbox's runtime class, such as `kata-qemu`.
    pub(crate) fn handler(&self) -> Option<&str> {
        HANDLER.iter().find_map(|key| self.get(key))
    }
}

fn known_key(key: &str) -> Option<&'static str> {
    let managers = MANAGERS.iter().flat_map(|keys| [keys.role, keys.sandbox_id]);
    managers
        .chain(NAMES.into_iter().flatten())
        .chain(IMAGE)
        .chain(HANDLER)
        .chain([OWN, CRIO_POD, CRIO_NAME])
        .find(|known| *known == key)
}

/// An annotation's key, where it is one of ours. Compared as it is read, so that the others cost no memory.
struct Key(Option<&'static str>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an annotation's key")
            }

            fn visit_str<E>(self, key: &str) -> Result<Key, E> {
                Ok(Key(known_key(key)))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Known;
        impl<'de> Visitor<'de> for Known {
            type Value = Annotations;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("annotations")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
                let mut known = HashMap::new();
                while let Some(Key(key)) = map.next_key()? {
                    let Some(key) = key else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    let value: String = map.next_value()?;
                    if value.len() <= MAX_VALUE {
                        known.insert(key, value);
                    }
                }
                Ok(Annotations(known))
            }
        }
        deserializer.deserialize_map(Known)
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::Spec;
    use super::*;

    fn annotations(json: &[u8]) -> Annotations {
        Spec::from_json(json).unwrap().annotations
    }

    fn spec(pairs: &[(&str, &str)]) -> Annotations {
        let map: serde_json::Map<_, _> = pairs.iter().map(|(k, v)| (k.to_string(), (*v).into())).collect();
        let json = serde_json::json!({"ociVersion": "1.1.0", "annotations": map, "linux": {"x": [1, 2]}});
        annotations(json.to_string().as_bytes())
    }

    #[test]
    fn reads_the_roles_of_a_recorded_kata_pod() {
        let sandbox = include_bytes!("../../tests/fixtures/kata-3.30-go/bundle-sandbox/config.json");
        let child = include_bytes!("../../tests/fixtures/kata-3.30-go/bundle-child/config.json");
        let id = "65e7a235858e772e3fab8d15f82f38bec74b7b8ebbba6033d79f0bc59753d99a";
        let sandbox = annotations(sandbox);
        let child = annotations(child);
        assert_eq!(sandbox.role(id), Role::Sandbox);
        assert_eq!(child.role("f15bfda5d303"), Role::InSandbox(id.into()));
        let names = PodNames {
            namespace: Some("default".into()),
            name: Some("kpod".into()),
            uid: Some("11111111-2222-3333-4444-555555555555".into()),
            container: None,
            image: Some("localhost/pause:1".into()),
            own: None,
        };
        assert_eq!(sandbox.names(), names);
        assert_eq!(
            child.names(),
            PodNames {
                container: Some("app".into()),
                image: Some("localhost/busybox:1".into()),
                ..names
            }
        );
    }

    #[test]
    fn knows_every_managers_keys() {
        for (role_key, id_key, sandbox) in [
            (
                "io.kubernetes.cri.container-type",
                "io.kubernetes.cri.sandbox-id",
                "sandbox",
            ),
            (
                "io.kubernetes.cri-o.ContainerType",
                "io.kubernetes.cri-o.SandboxID",
                "sandbox",
            ),
            (
                "io.kubernetes.docker.type",
                "io.kubernetes.sandbox.id",
                "podsandbox",
            ),
        ] {
            assert_eq!(
                spec(&[(role_key, sandbox), (id_key, "s1")]).role("s1"),
                Role::Sandbox
            );
            let child = spec(&[(role_key, "container"), (id_key, "s1")]);
            assert_eq!(child.role("c1"), Role::InSandbox("s1".into()), "{role_key}");
        }
    }

    #[test]
    fn without_a_type_a_container_is_plain() {
        assert_eq!(spec(&[]).role("c1"), Role::Plain);
        assert_eq!(
            spec(&[("io.kubernetes.cri.sandbox-id", "s1")]).role("c1"),
            Role::Plain
        );
        assert_eq!(
            spec(&[("io.kubernetes.cri.container-type", "container")]).role("c1"),
            Role::Plain
        );
        for json in ["{}", "{\"annotations\":null}", "{\"annotations\":{}}"] {
            assert_eq!(annotations(json.as_bytes()).role("c1"), Role::Plain, "{json}");
        }
    }

    #[test]
    fn reads_crio_names() {
        let names = spec(&[
            ("io.kubernetes.pod.namespace", "shop"),
            ("io.kubernetes.pod.name", "web-1"),
            ("io.kubernetes.pod.uid", "u"),
            ("io.kubernetes.container.name", "nginx"),
        ])
        .names();
        assert_eq!(names.namespace.as_deref(), Some("shop"));
        assert_eq!(names.name.as_deref(), Some("web-1"));
        assert_eq!(names.uid.as_deref(), Some("u"));
        assert_eq!(names.container.as_deref(), Some("nginx"));
    }

    #[test]
    fn names_without_the_kubelets_labels_are_crios() {
        let sandbox = annotations(include_bytes!(
            "../../tests/fixtures/crio-1.37/shimrunc-sandbox-bundle/config.json"
        ));
        let container = annotations(include_bytes!(
            "../../tests/fixtures/crio-1.37/shimrunc-container-bundle/config.json"
        ));
        let names = PodNames {
            namespace: Some("shop".into()),
            name: Some("oshimrunc".into()),
            uid: Some("uid-oshimrunc".into()),
            image: Some("localhost/pause:1".into()),
            ..PodNames::NONE
        };
        assert_eq!(sandbox.names(), names);
        assert_eq!(sandbox.handler(), Some("shimrunc"));
        let expected = PodNames {
            container: Some("app".into()),
            image: Some("localhost/busybox:1".into()),
            ..names
        };
        assert_eq!(container.names(), expected);
        let id = "b48803f77318d66779a46e2e69a221c88de6102c9b3cd43e23c98c2d88b3ec4c";
        assert_eq!(container.role("05faa08f"), Role::InSandbox(id.into()));
        for odd in ["k8s_a_b", "", "k8s_a_b_c_d_e_f", "_____"] {
            let names = spec(&[(CRIO_ROLE, "container"), (CRIO_POD, odd), (CRIO_NAME, odd)]).names();
            assert_eq!((names.name, names.container), (None, None), "{odd:?}");
        }
    }

    #[test]
    fn reads_nerdctls_name() {
        assert_eq!(
            spec(&[("nerdctl/name", "web_1")]).names().own.as_deref(),
            Some("web_1")
        );
    }

    #[test]
    fn escaped_keys_are_the_same_keys() {
        let json = br#"{"annotations":{"io.kubernetes.cri.container\u002dtype":"sandbox"}}"#;
        assert_eq!(annotations(json).role("s"), Role::Sandbox);
    }
}
