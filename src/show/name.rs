//! What containers are called when they are shown to people.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use shimstat::node::{Bundle, Container};

/// How many digits of a random id are shown, as in `crictl ps` and `docker ps`.
const SHORT: usize = 12;

/// An id of at least this many hex digits is random, so that its prefix identifies it too. Others are shown in full.
const RANDOM: usize = 32;

/// A prefix of a random id; any other id in full. Untrusted text.
pub fn short_id(id: &str) -> &str {
    let random = id.len() >= RANDOM && id.bytes().all(|b| b.is_ascii_hexdigit());
    id.get(..SHORT).filter(|_| random).unwrap_or(id)
}

/// `namespace/pod/container`, `namespace/pod` for a sandbox, or the short id if there are no such names. Untrusted text.
pub fn label(container: &Container) -> String {
    container
        .name()
        .unwrap_or_else(|| short_id(container.id()).to_string())
}

/// The labels that containers in several places share: ids, and names of pods, are only unique within one namespace of
/// one containerd.
#[derive(Debug, Default)]
pub struct Labels(HashMap<String, Vec<Place>>);

/// The namespace, and the state directory of its containerd.
type Place = (String, PathBuf);

impl Labels {
    /// Takes the labels of all containers that are shown together.
    pub fn new<'a>(labels: impl IntoIterator<Item = (String, &'a Bundle)>) -> Self {
        let mut places: HashMap<String, Vec<Place>> = HashMap::new();
        for (label, bundle) in labels {
            let place = (bundle.namespace.clone(), bundle.state_dir.clone());
            let all = places.entry(label).or_default();
            if !all.contains(&place) {
                all.push(place);
            }
        }
        places.retain(|_, all| all.len() > 1);
        Self(places)
    }

    /// Whether containers in several places share a label.
    pub fn any_is_shared(&self) -> bool {
        !self.0.is_empty()
    }

    /// The label, with a prefix if containers elsewhere share it: `moby:web`. It is a prefix because long labels are cut at
    /// their ends.
    pub fn distinct<'a>(&self, label: &'a str, bundle: &Bundle) -> Cow<'a, str> {
        let (namespace, state_dir): (&str, &Path) = (&bundle.namespace, &bundle.state_dir);
        let Some(places) = self.0.get(label) else {
            return label.into();
        };
        let here = places.iter().filter(|(other, _)| other == namespace).count();
        match here {
            0 | 1 => format!("{namespace}:{label}").into(),
            _ => format!("{}:{namespace}:{label}", state_dir.display()).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_made_up_at_random_are_cut() {
        let random = "5779b2366f47cd1468ebb1ba7c52cbdde3c7d3a5f2af3eefadc8356700fc860b";
        assert_eq!(short_id(random), "5779b2366f47");
        assert_eq!(
            short_id("web-server-of-the-shop-in-namespace-default-1"),
            "web-server-of-the-shop-in-namespace-default-1"
        );
        assert_eq!(short_id("5779b2366f47cd"), "5779b2366f47cd");
    }

    fn bundle(state_dir: &str, namespace: &str) -> Bundle {
        Bundle {
            state_dir: state_dir.into(),
            namespace: namespace.into(),
            id: "web".into(),
            path: format!("{state_dir}/{namespace}/web").into(),
            layout: shimstat::node::Layout::Task,
        }
    }

    #[test]
    fn equal_labels_are_told_apart_by_where_they_are() {
        let [a, b, c] = [("/a", "moby"), ("/a", "default"), ("/b", "default")].map(|(d, n)| bundle(d, n));
        let labels =
            |bundles: &[&Bundle]| Labels::new(bundles.iter().map(|bundle| ("web".to_string(), *bundle)));
        let alone = labels(&[&a, &a]);
        assert!(!alone.any_is_shared());
        assert_eq!(alone.distinct("web", &a), "web");
        let two = labels(&[&a, &b]);
        assert!(two.any_is_shared());
        assert_eq!(
            [two.distinct("web", &a), two.distinct("web", &b)],
            ["moby:web", "default:web"]
        );
        assert_eq!(two.distinct("db", &a), "db");
        let three = labels(&[&a, &b, &c]);
        assert_eq!(
            [&a, &b, &c].map(|bundle| three.distinct("web", bundle)),
            ["moby:web", "/a:default:web", "/b:default:web"]
        );
    }
}
