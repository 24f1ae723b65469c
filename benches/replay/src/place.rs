//! Bundles and sockets, as containerd and Kata lay them out.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where Kata's Go shim keeps its sockets.
const KATA: &str = "/run/vc/sbs";

/// The directory of everything, and what is elsewhere. All of it is removed with it.
pub struct Place {
    dir: PathBuf,
    sockets_only: bool,
    elsewhere: std::cell::RefCell<Vec<PathBuf>>,
}

/// Where one sandbox is served.
pub struct Sandbox {
    pub id: String,
    pub monitor: PathBuf,
    pub shim: Option<PathBuf>,
}

impl Place {
    pub fn make(dir: &Path, sockets_only: bool) -> io::Result<Self> {
        // Not into what is somebody else's.
        fs::create_dir(dir)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", dir.display())))?;
        fs::create_dir(dir.join("s"))?;
        Ok(Self {
            dir: dir.to_path_buf(),
            sockets_only,
            elsewhere: std::cell::RefCell::default(),
        })
    }

    /// Makes what the sandbox of that number needs.
    pub fn sandbox(&self, number: usize) -> io::Result<Sandbox> {
        let id = format!("5eed{number:060x}");
        if self.sockets_only {
            let dir = Path::new(KATA).join(&id);
            fs::create_dir_all(&dir)?;
            self.elsewhere.borrow_mut().push(dir.clone());
            let monitor = dir.join("shim-monitor.sock");
            return Ok(Sandbox {
                id,
                monitor,
                shim: None,
            });
        }
        let monitor = self.dir.join(format!("s/m{number}"));
        let shim = self.dir.join(format!("s/t{number}"));
        let pod = format!("web-{number}");
        let uid = format!("7c312b48-3d0f-4f4e-9c3a-{number:012x}");
        let annotations = |kind: &str| {
            serde_json::json!({
                "io.kubernetes.cri.container-type": kind,
                "io.kubernetes.cri.sandbox-id": id,
                "io.kubernetes.cri.sandbox-name": pod,
                "io.kubernetes.cri.sandbox-namespace": "shop",
                "io.kubernetes.cri.sandbox-uid": uid,
            })
        };
        let bundle = self.bundle(&id, &shim, annotations("sandbox"))?;
        fs::write(
            bundle.join("monitor_address"),
            format!("unix://{}", monitor.display()),
        )?;
        let mut container = annotations("container");
        container["io.kubernetes.cri.container-name"] = "app".into();
        container["io.kubernetes.cri.image-name"] = "registry.example/web:1".into();
        self.bundle(&child(&id), &shim, container)?;
        Ok(Sandbox {
            id,
            monitor,
            shim: Some(shim),
        })
    }

    fn bundle(&self, id: &str, shim: &Path, annotations: serde_json::Value) -> io::Result<PathBuf> {
        let bundle = self
            .dir
            .join("state/io.containerd.runtime.v2.task/k8s.io")
            .join(id);
        fs::create_dir_all(&bundle)?;
        let spec = serde_json::json!({"ociVersion": "1.1.0", "annotations": annotations});
        fs::write(bundle.join("config.json"), spec.to_string())?;
        fs::write(
            bundle.join("shim-binary-path"),
            "/opt/kata/bin/containerd-shim-kata-v2",
        )?;
        fs::write(bundle.join("address"), format!("unix://{}", shim.display()))?;
        Ok(bundle)
    }
}

/// The id of the container in a sandbox.
pub fn child(sandbox: &str) -> String {
    sandbox.replacen("5eed", "c0de", 1)
}

impl Drop for Place {
    fn drop(&mut self) {
        for dir in self.elsewhere.borrow().iter() {
            let _ = fs::remove_dir_all(dir);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}
