//! Where the monitor socket of a sandbox may be.
//!
//! | Kata | address |
//! |---|---|
//! | 2.0 | abstract `/containerd-shim/<namespace>/<id>/shim-monitor.sock` |
//! | 2.1 | abstract `/run/vc/<id>/shim-monitor` |
//! | 2.2 to 4.1, Go shim | `/run/vc/sbs/<id>/shim-monitor.sock` |
//! | 3.1.0 and 3.1.1, Go shim | may be `/run/kata/<id>/shim-monitor.sock` |
//! | Rust shim | `/run/kata/<id>/shim-monitor.sock` |
//!
//! The Go shim notes its address in the sandbox's bundle as well; the Rust shim does not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::bundle::{Bundle, BundleError};
use super::files::ReadError;
use super::shelf::list;
use crate::shim::address::Address;

/// The directories in which Kata's shims keep a directory for each sandbox: the Go shim's, the Rust shim's.
pub const ROOTS: [&str; 2] = [GO_ROOT, RUST_ROOT];

pub(super) const GO_ROOT: &str = "/run/vc/sbs";
pub(super) const RUST_ROOT: &str = "/run/kata";

pub(super) const SOCKET: &str = "shim-monitor.sock";

/// The addresses at which a sandbox's monitor may listen, best first: the one in its bundle, the known paths,
/// the known abstract names. Socket files that are not there are left out, except the first known path where
/// nothing else is known: it is the one to name in an error.
///
/// `id` must be an id (see [`Id`](super::Id)), as paths are made from it.
pub fn candidates(
    id: &str,
    namespace: Option<&str>,
    bundle: Option<&Bundle>,
) -> Result<Vec<Address>, BundleError> {
    let mut addresses = known(id, bundle)?;
    if addresses.is_empty() {
        addresses.push(Address::Path(socket(GO_ROOT, id)));
    }
    addresses.push(Address::Abstract(
        format!("/run/vc/{id}/shim-monitor").into_bytes(),
    ));
    if let Some(namespace) = namespace {
        let name = format!("/containerd-shim/{namespace}/{id}/{SOCKET}");
        addresses.push(Address::Abstract(name.into_bytes()));
    }
    Ok(addresses)
}

/// The addresses at which a sandbox's monitor listens or has listened, best first: the one in its bundle, and those
/// of the known paths where a socket is. Empty for a container that is not a Kata sandbox.
///
/// `id` must be an id (see [`Id`](super::Id)), as paths are made from it.
pub fn known(id: &str, bundle: Option<&Bundle>) -> Result<Vec<Address>, BundleError> {
    let mut addresses: Vec<Address> = bundle
        .map(Bundle::monitor_address)
        .transpose()?
        .flatten()
        .into_iter()
        .collect();
    for path in ROOTS.map(|root| socket(root, id)) {
        let address = Address::Path(path.clone());
        // One that may not be looked at is kept, so that connecting says why not.
        if path.try_exists().unwrap_or(true) && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// The sandboxes that have a monitor socket below one of the roots, whether containerd knows them or not, by id, each
/// with its addresses there, best first; only those whose ids start with `prefix`.
pub fn sandboxes(prefix: &str) -> Result<BTreeMap<String, Vec<Address>>, ReadError> {
    sandboxes_below(&ROOTS.map(Path::new), prefix)
}

fn sandboxes_below(roots: &[&Path], prefix: &str) -> Result<BTreeMap<String, Vec<Address>>, ReadError> {
    let mut sandboxes: BTreeMap<String, Vec<Address>> = BTreeMap::new();
    for root in roots {
        for id in list(root, |name| name.starts_with(prefix))? {
            let path = root.join(&id).join(SOCKET);
            if path.exists() {
                sandboxes.entry(id).or_default().push(Address::Path(path));
            }
        }
    }
    Ok(sandboxes)
}

fn socket(root: &str, id: &str) -> PathBuf {
    Path::new(root).join(id).join(SOCKET)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn paths(addresses: &[Address]) -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_bundle_names_its_socket_first() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("monitor_address"),
            "unix:///elsewhere/monitor.sock",
        )
        .unwrap();
        let bundle = Bundle::of_task("k8s.io", "no-such-sandbox", dir.path());
        let addresses = candidates(&bundle.id, Some("k8s.io"), Some(&bundle)).unwrap();
        assert_eq!(
            paths(&addresses),
            [
                "/elsewhere/monitor.sock",
                "@/run/vc/no-such-sandbox/shim-monitor",
                "@/containerd-shim/k8s.io/no-such-sandbox/shim-monitor.sock",
            ]
        );
    }

    #[test]
    fn where_nothing_is_the_usual_path_is_the_one_to_name() {
        assert_eq!(known("no-such-sandbox", None).unwrap(), []);
        let addresses = candidates("no-such-sandbox", None, None).unwrap();
        assert_eq!(
            paths(&addresses),
            [
                "/run/vc/sbs/no-such-sandbox/shim-monitor.sock",
                "@/run/vc/no-such-sandbox/shim-monitor"
            ]
        );
    }

    #[test]
    fn sandboxes_are_the_directories_with_a_socket() {
        let dir = tempfile::tempdir().unwrap();
        let (go, rust) = (dir.path().join("go"), dir.path().join("rust"));
        for path in [
            go.join("s1"),
            go.join("both"),
            rust.join("both"),
            rust.join("r1"),
            go.join("empty"),
        ] {
            fs::create_dir_all(&path).unwrap();
            if !path.ends_with("empty") {
                fs::write(path.join(SOCKET), "").unwrap();
            }
        }
        let roots = [go.as_path(), rust.as_path(), Path::new("/no/such/root")];
        let found = |prefix| -> Vec<(String, Vec<String>)> {
            let found = sandboxes_below(&roots, prefix).unwrap().into_iter();
            found.map(|(id, addresses)| (id, paths(&addresses))).collect()
        };
        let at = |root: &Path, id: &str| root.join(id).join(SOCKET).display().to_string();
        let s1 = ("s1".to_string(), vec![at(&go, "s1")]);
        let both = ("both".to_string(), vec![at(&go, "both"), at(&rust, "both")]);
        let r1 = ("r1".to_string(), vec![at(&rust, "r1")]);
        assert_eq!(found(""), [both, r1, s1.clone()]);
        assert_eq!(found("s"), [s1]);
    }
}
