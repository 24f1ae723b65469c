//! The names that people have for containers: `namespace/pod` for a pod's sandbox, `namespace/pod/container` for a
//! container in it, and the pod's name alone; for a container in no pod the name that nerdctl, Docker or podman gave it,
//! alone or after containerd's namespace. Pure: matched against containers that were read before.

use std::sync::Arc;

use super::annotations::Role;
use super::container::Container;
use super::id::{Id, IdError};

/// The longest name of a Kubernetes namespace or container (a DNS label), and of a pod (a DNS subdomain).
const MAX_LABEL: usize = 63;
const MAX_SUBDOMAIN: usize = 253;

/// How many hex digits at the start of an id are surely meant for one. Managers make their ids up at random: that ten
/// thousand of them hold one that begins with the eight digits of a pod's name happens once in 400,000 nodes.
const SURELY_AN_ID: usize = 8;

/// The name of a container in no pod.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OwnName {
    /// containerd's.
    namespace: Option<Id>,
    name: Id,
}

/// What a text can name: a container by its id or the beginning of one, by its name, or either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    id: Option<Id>,
    name: Option<Name>,
    own: Option<OwnName>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    namespace: Option<String>,
    pod: String,
    container: Option<String>,
}

impl Wanted {
    /// Checks a text. What is neither an id, nor the beginning of one, nor a name that Kubernetes would take is an
    /// error, which says why it is no id. A pod's name that is longer than an id needs its namespace before it.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let mut parts = text.split('/');
        let name = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(pod), None, ..) => Some((None, pod, None)),
            (Some(namespace), Some(pod), container, None) => Some((Some(namespace), pod, container)),
            _ => None,
        };
        let name = name
            .filter(|(namespace, pod, container)| {
                namespace.is_none_or(is_label) && is_subdomain(pod) && container.is_none_or(is_label)
            })
            .map(|(namespace, pod, container)| Name {
                namespace: namespace.map(str::to_string),
                pod: pod.to_string(),
                container: container.map(str::to_string),
            });
        let own = match text.split_once('/') {
            Some((namespace, name)) => {
                Id::parse(namespace)
                    .ok()
                    .zip(Id::parse(name).ok())
                    .map(|(namespace, name)| OwnName {
                        namespace: Some(namespace),
                        name,
                    })
            }
            None => Id::parse(text).ok().map(|name| OwnName {
                namespace: None,
                name,
            }),
        };
        match (Id::parse(text), name) {
            (Ok(id), name) => Ok(Self {
                id: Some(id),
                name,
                own,
            }),
            (Err(error @ (IdError::Empty | IdError::TooLong)), Some(Name { namespace: None, .. }) | None) => {
                Err(error)
            }
            (Err(error), None) if own.is_none() => Err(error),
            (Err(_), name) => Ok(Self { id: None, name, own }),
        }
    }

    /// The id, or the beginning of one, that it can be.
    pub fn id(&self) -> Option<&Id> {
        self.id.as_ref()
    }

    /// Whether it can only be the start of an id: nobody gives a container such a name.
    pub fn is_surely_an_id(&self) -> bool {
        self.id.as_ref().is_some_and(|id| {
            let id = id.as_str();
            id.len() >= SURELY_AN_ID && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
    }

    /// The containers of the pod of this name, where none of them is its sandbox.
    pub fn in_pod<'a>(&self, containers: &'a [Arc<Container>]) -> Vec<&'a Arc<Container>> {
        let pod = self.name.as_ref().filter(|name| name.container.is_none());
        let is_in = |container: &&Arc<Container>| {
            matches!(container.role(), Role::InSandbox(_)) && pod.is_some_and(|pod| pod.is_pod_of(container))
        };
        containers.iter().filter(is_in).collect()
    }

    /// The containers of this name. There may be several: a pod's name alone fits pods of several namespaces, and a
    /// pod that was made anew can leave its old self behind.
    pub fn named<'a>(&self, containers: &'a [Arc<Container>]) -> Vec<&'a Arc<Container>> {
        let is_named = |container: &&Arc<Container>| {
            self.name.as_ref().is_some_and(|name| name.is_of(container))
                || self.own.as_ref().is_some_and(|own| own.is_of(container))
        };
        containers.iter().filter(is_named).collect()
    }
}

impl Name {
    fn is_of(&self, container: &Container) -> bool {
        self.is_pod_of(container)
            && match container.role() {
                Role::Plain => false,
                Role::Sandbox => self.container.is_none(),
                Role::InSandbox(_) => {
                    self.container.is_some() && container.names().container == self.container
                }
            }
    }

    fn is_pod_of(&self, container: &Container) -> bool {
        let names = container.names();
        names.name.as_ref() == Some(&self.pod)
            && (self.namespace.is_none() || names.namespace == self.namespace)
    }
}

impl OwnName {
    fn is_of(&self, container: &Container) -> bool {
        *container.role() == Role::Plain
            && container.names().own.as_deref() == Some(self.name.as_str())
            && self
                .namespace
                .as_ref()
                .is_none_or(|namespace| container.bundle.namespace == namespace.as_str())
    }
}

fn is_label(text: &str) -> bool {
    text.len() <= MAX_LABEL && is_dns(text)
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= MAX_SUBDOMAIN && text.split('.').all(is_dns)
}

/// Lower-case letters, digits and `-`, not at the ends (RFC 1123).
fn is_dns(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::container::tests::container;
    use crate::node::{Description, PodNames};
    use proptest::prelude::*;

    fn node() -> Vec<Arc<Container>> {
        let within = || Role::InSandbox("s1".into());
        vec![
            container("k8s.io/s1", Role::Sandbox, [Some("shop"), Some("web-0"), None]),
            container(
                "k8s.io/c1",
                within(),
                [Some("shop"), Some("web-0"), Some("nginx")],
            ),
            container(
                "k8s.io/c2",
                within(),
                [Some("shop"), Some("web-0"), Some("web-0")],
            ),
            container("k8s.io/s2", Role::Sandbox, [Some("test"), Some("web-0"), None]),
            container("k8s.io/s3", Role::Sandbox, [Some("shop"), Some("db"), None]),
            container("k8s.io/p1", Role::Plain, [Some("shop"), Some("db"), None]),
            container("k8s.io/c3", within(), [Some("shop"), None, Some("nginx")]),
        ]
    }

    fn named(text: &str) -> Vec<String> {
        let node = node();
        let wanted = Wanted::parse(text).unwrap();
        wanted.named(&node).iter().map(|c| c.bundle.id.clone()).collect()
    }

    #[test]
    fn a_pods_name_is_its_sandboxs() {
        assert_eq!(named("shop/web-0"), ["s1"]);
        assert_eq!(named("test/web-0"), ["s2"]);
        assert_eq!(named("web-0"), ["s1", "s2"]);
        assert_eq!(named("db"), ["s3"]);
        assert_eq!(named("shop/web-0/nginx"), ["c1"]);
        assert_eq!(named("shop/web-0/web-0"), ["c2"]);
        for nobody in [
            "shop/web",
            "shop/web-0/ngin",
            "test/web-0/nginx",
            "nginx",
            "shop",
            "s1/c1",
        ] {
            assert!(named(nobody).is_empty(), "{nobody}");
        }
    }

    #[test]
    fn a_container_in_no_pod_has_a_name_of_its_own() {
        let own = |path: &str, name: &str| {
            let bare = container(path, Role::Plain, [None; 3]);
            let names = PodNames {
                own: Some(name.to_string()),
                ..PodNames::NONE
            };
            let description = Description {
                names,
                ..Description::default()
            };
            Arc::new(Container::new(
                bare.bundle.clone(),
                bare.source.clone(),
                description,
            ))
        };
        let node = [
            own("default/c1", "web_1"),
            own("other/c2", "web_1"),
            own("moby/c3", "db"),
        ];
        let named = |text: &str| -> Vec<String> {
            let wanted = Wanted::parse(text).unwrap();
            wanted.named(&node).iter().map(|c| c.id().to_string()).collect()
        };
        assert_eq!(named("web_1"), ["c1", "c2"]);
        assert_eq!(named("other/web_1"), ["c2"]);
        assert_eq!(named("db"), ["c3"]);
        for nobody in ["default/db", "web", "web_1x", "moby/db/x"] {
            assert!(named(nobody).is_empty(), "{nobody}");
        }
        assert_eq!(node[0].name().as_deref(), Some("web_1"));
    }

    #[test]
    fn what_is_no_id_and_no_name_is_refused() {
        let long = "a".repeat(77);
        for (text, error) in [
            ("", IdError::Empty),
            ("..", IdError::Pattern),
            ("../default/x", IdError::Pattern),
            ("a/../b", IdError::Pattern),
            ("/etc", IdError::Pattern),
            ("a/", IdError::Pattern),
            ("/", IdError::Pattern),
            ("a//b", IdError::Pattern),
            ("a/b/c/d", IdError::Pattern),
            ("a/b/", IdError::Pattern),
            ("a b", IdError::Pattern),
            ("a/b c", IdError::Pattern),
            ("shop/web\n", IdError::Pattern),
            ("shop/we\x1bb", IdError::Pattern),
            ("Shop-/web--1", IdError::Pattern),
            ("shop/-web", IdError::Pattern),
            ("shop/web..x", IdError::Pattern),
            ("a..b", IdError::Pattern),
            (long.as_str(), IdError::TooLong),
        ] {
            assert_eq!(Wanted::parse(text), Err(error), "{text:?}");
        }
        let label = "a".repeat(64);
        assert!(Wanted::parse(&format!("{long}/x")).is_err());
        assert!(Wanted::parse(&format!("x/y/{label}")).is_err());
        assert!(Wanted::parse(&format!("x/{}", "a".repeat(254))).is_err());
        assert!(Wanted::parse(&format!("x/{}", "a".repeat(253))).is_ok());
    }

    #[test]
    fn a_text_can_be_id_and_name() {
        let both = Wanted::parse("web-0.x").unwrap();
        assert!(both.id().is_some() && both.name.is_some());
        let id = Wanted::parse("Web_0").unwrap();
        assert!(id.id().is_some() && id.name.is_none() && id.own.is_some());
        for name in ["my--pod", "shop/web"] {
            let name = Wanted::parse(name).unwrap();
            assert!(name.id().is_none() && name.name.is_some());
        }
    }

    #[test]
    fn long_hex_digits_and_what_is_no_name_are_surely_an_id() {
        for (text, surely) in [
            ("5779b236", true),
            (
                "5779b2366f47cd1468ebb1ba7c52cbdde3c7d3a5f2af3eefadc8356700fc860b",
                true,
            ),
            ("Web_0", false),
            ("web-", false),
            ("5779b23", false),
            ("db", false),
            ("web-frontend", false),
            ("shop/5779b236", false),
        ] {
            assert_eq!(Wanted::parse(text).unwrap().is_surely_an_id(), surely, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_is_safe_in_a_shell_and_on_a_terminal(text in "\\PC{0,20}|[a-z./-]{0,10}") {
            if Wanted::parse(&text).is_ok() {
                prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b)));
                prop_assert!(!text.contains("..") && !text.starts_with(['.', '-', '/']));
            }
        }
    }
}
