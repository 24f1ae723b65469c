//! A container of this node: its bundle, who answers for it, and what its spec says of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use super::annotations::{PodNames, Role};
use super::bundle::{Bundle, BundleError, Layout};
use super::cgroup::{CgroupError, CgroupMounts};
use super::docker;
use super::files::ReadError;
use super::host_container::HostContainer;
use super::id::Id;
use super::pace::Answerer;
use super::runtime::{Runtime, Traces};
use super::shelf;
use super::spec::Spec;
use crate::shim::address::Endpoint;

/// A container (containerd's task): a plain one, a pod's sandbox, or a container in a pod.
///
/// Nothing of this changes for as long as the container exists. Its spec is read when something of it is asked for,
/// and once.
#[derive(Debug)]
pub struct Container {
    /// Where its manager keeps its files. Tells it from every other container on the node.
    pub bundle: Bundle,
    /// Who answers for it, or why that is not known.
    pub source: Result<Source, Arc<BundleError>>,
    description: OnceLock<Result<Description, BundleError>>,
    /// The names of its pod, where its own spec does not say them.
    pod: OnceLock<PodNames>,
    /// Whether its shim has said that it has no statistics of it.
    has_no_statistics: AtomicBool,
    /// Where the kernel has its numbers, where it runs on this host.
    on_host: OnceLock<HostContainer>,
    answerer: OnceLock<Answerer>,
    runtime: OnceLock<Option<Arc<Runtime>>>,
    unread_note: Mutex<Option<Arc<ReadError>>>,
}

/// How long after a container's creation what tells its runtime may still be missing.
const NOTED_WITHIN: Duration = Duration::from_secs(5);

/// Who answers for a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The task service of its shim.
    Task(Endpoint),
    /// The sandbox service of its shim: a sandbox that its shim manages (`sandboxer = "shim"`).
    Sandbox(Endpoint),
    /// Nobody: it has no shim, and the kernel's files are all there is.
    Cgroup,
}

impl Source {
    /// Where a shim listens for it.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match self {
            Self::Task(endpoint) | Self::Sandbox(endpoint) => Some(endpoint),
            Self::Cgroup => None,
        }
    }

    fn read(bundle: &Bundle) -> Result<Option<Self>, BundleError> {
        let endpoint = bundle.endpoint()?;
        Ok(match bundle.layout {
            Layout::Task => endpoint.map(Self::Task),
            Layout::Sandbox => endpoint.map(Self::Sandbox),
            Layout::Storage => endpoint
                .map(Self::Task)
                .or_else(|| bundle.init_pid().map(|_| Self::Cgroup)),
        })
    }
}

/// What a container's spec says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// What it is to its pod.
    pub role: Role,
    /// The names that people know it by.
    pub names: PodNames,
    /// The name of the runtime class's handler, where the manager says so.
    pub handler: Option<String>,
    /// The cgroup that it was given, as the spec writes it (see [`CgroupMounts`](super::cgroup::CgroupMounts)).
    pub cgroups_path: Option<String>,
    /// The path of the network namespace that it was put into, which its pod shares; `None` for one of its own or the
    /// host's.
    pub network_namespace: Option<String>,
}

/// Stands in for a spec that cannot be read.
static UNKNOWN: Description = Description {
    role: Role::Plain,
    names: PodNames::NONE,
    handler: None,
    cgroups_path: None,
    network_namespace: None,
};

impl AsRef<Container> for Container {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Container {
    /// Reads who answers for the container of a bundle; `None` for one that is being created or deleted.
    pub fn read(bundle: Bundle) -> Option<Self> {
        let source = match Source::read(&bundle) {
            Ok(source) => Ok(source?),
            Err(error) => Err(Arc::new(error)),
        };
        Some(Self {
            bundle,
            source,
            description: OnceLock::new(),
            pod: OnceLock::new(),
            has_no_statistics: AtomicBool::new(false),
            on_host: OnceLock::new(),
            answerer: OnceLock::new(),
            runtime: OnceLock::new(),
            unread_note: Mutex::default(),
        })
    }

    /// A container of which everything is known already.
    pub fn new(bundle: Bundle, source: Result<Source, Arc<BundleError>>, description: Description) -> Self {
        Self {
            bundle,
            source,
            description: Ok(description).into(),
            pod: OnceLock::new(),
            has_no_statistics: AtomicBool::new(false),
            on_host: OnceLock::new(),
            answerer: OnceLock::new(),
            runtime: OnceLock::new(),
            unread_note: Mutex::default(),
        }
    }

    /// The full id.
    pub fn id(&self) -> &str {
        &self.bundle.id
    }

    /// Where its shim listens; `None` where it has no shim, or its address is not known.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.source.as_ref().ok().and_then(Source::endpoint)
    }

    /// What its spec says of it, or why that cannot be read.
    pub fn description(&self) -> Result<&Description, &BundleError> {
        self.description
            .get_or_init(|| match self.bundle.layout {
                Layout::Sandbox => Ok(Description {
                    role: Role::Sandbox,
                    ..Description::default()
                }),
                Layout::Task | Layout::Storage => {
                    let spec = self.bundle.spec()?;
                    Ok(Description::of(spec, &self.bundle))
                }
            })
            .as_ref()
    }

    /// Why its spec could not be read, although there is one. It may be readable the next time, and what is said of the
    /// container without it (its names, its pod, its role) is not to be trusted.
    pub fn unread(&self) -> Option<&BundleError> {
        match self.description() {
            Err(BundleError::Read(read)) if read.is_missing() => None,
            Err(error) => Some(error),
            Ok(_) => None,
        }
    }

    /// Which note of its shim could not be read when its [runtime](Self::runtime) was last asked for, although there is one.
    /// What is said of its runtime is by other signs then.
    pub fn unread_note(&self) -> Option<Arc<ReadError>> {
        self.noted_unread().clone()
    }

    fn noted_unread(&self) -> MutexGuard<'_, Option<Arc<ReadError>>> {
        self.unread_note.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its spec was tried, and [could not be read](Self::unread).
    pub(crate) fn is_misread(&self) -> bool {
        self.description.get().is_some() && self.unread().is_some()
    }

    /// What it is to its pod; [`Role::Plain`] where its spec cannot be read.
    pub fn role(&self) -> &Role {
        match self.bundle.layout {
            Layout::Sandbox => &Role::Sandbox,
            Layout::Task | Layout::Storage => &self.known().role,
        }
    }

    /// The names that people know it by; none where nothing says them.
    pub fn names(&self) -> &PodNames {
        match self.bundle.layout {
            Layout::Sandbox => self.pod.get().unwrap_or(&self.known().names),
            Layout::Task | Layout::Storage => &self.known().names,
        }
    }

    /// Whether it is a sandbox without a spec, whose pod's names are not known yet.
    pub(super) fn lacks_names(&self) -> bool {
        self.bundle.layout == Layout::Sandbox && self.pod.get().is_none()
    }

    /// Takes its pod's names from a container in it.
    pub(super) fn take_names(&self, of: &PodNames) {
        // They are the same in every container of the pod.
        let _ = self.pod.set(PodNames {
            container: None,
            image: None,
            own: None,
            ..of.clone()
        });
    }

    /// Whether its shim has said that it has no statistics of it, which does not change.
    pub(crate) fn has_no_statistics(&self) -> bool {
        self.has_no_statistics.load(Ordering::Relaxed)
    }

    pub(crate) fn note_no_statistics(&self) {
        self.has_no_statistics.store(true, Ordering::Relaxed);
    }

    /// The path of the network namespace that its spec puts it into; `None` where that is one of its own, the host's or
    /// not known.
    pub fn network_namespace(&self) -> Option<&str> {
        self.known().network_namespace.as_deref()
    }

    /// The cgroup that its spec gives it; `None` where it gives none, or cannot be read.
    pub(crate) fn cgroups_path(&self) -> Option<&str> {
        self.known().cgroups_path.as_deref()
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
    /// the same namespace of the same containerd. There need not be a bundle at that path: that of a sandbox which its
    /// shim manages is elsewhere.
    pub(crate) fn sandbox_bundle(&self) -> Bundle {
        shelf::pod_bundle(&self.bundle, self.sandbox_id().unwrap_or(&self.bundle.id))
    }

    /// The bundle of its sandbox, where that is another one: it has what is noted of the shim. containerd 2.x notes it
    /// there alone.
    fn sandboxs_bundle(&self) -> Option<Bundle> {
        let sandbox = match self.bundle.noted_sandbox() {
            Some(noted) => noted,
            None => Id::parse(self.sandbox_id()?).ok()?,
        };
        (sandbox.as_str() != self.bundle.id)
            .then(|| shelf::existing_beside(&self.bundle, sandbox.as_str()))?
    }

    /// What is known of the shim that runs it.
    fn traces(&self) -> Traces<'_> {
        Traces {
            bundle: &self.bundle,
            // Mostly its own says all, and then no other is looked for.
            sandboxs: if self.bundle.names_its_shim() {
                None
            } else {
                self.sandboxs_bundle()
            },
            sandbox_id: self.sandbox_id(),
            handler: self.known().handler.as_deref(),
            address: self.endpoint().map(|endpoint| &endpoint.address),
            unread: OnceLock::new(),
        }
    }

    /// The runtime that runs it; `None` where nothing tells. Read anew each time: Kata's shim notes its hypervisor a
    /// moment after the bundle is there.
    pub fn runtime(&self) -> Option<Runtime> {
        let traces = self.traces();
        let runtime = Runtime::of(&traces);
        *self.noted_unread() = traces.unread.into_inner().map(Arc::new);
        runtime
    }

    /// Whether its statistics are those of a cgroup of this machine: runc's shim runs it, or it has none.
    pub fn is_on_host(&self) -> bool {
        matches!(self.source, Ok(Source::Cgroup)) || self.has_runcs_shim()
    }

    /// Where the kernel has its numbers, where that was found before (see [`host_container`](Self::host_container)).
    pub fn known_host_container(&self, pid: u32) -> Option<&HostContainer> {
        self.on_host.get().filter(|known| known.pid() == pid)
    }

    /// Where the kernel has its numbers, by the pid of its first process: found once, as neither changes while the
    /// container runs. `None` where it does not run on this host.
    pub fn host_container(
        &self,
        pid: u32,
        mounts: &CgroupMounts,
    ) -> Result<Option<&HostContainer>, CgroupError> {
        if let Some(known) = self.on_host.get() {
            return Ok((known.pid() == pid).then_some(known));
        }
        if pid == 0 || !self.is_on_host() {
            return Ok(None);
        }
        let cgroup = mounts.of_process(pid, self.id(), self.cgroups_path())?;
        Ok(Some(self.on_host.get_or_init(|| HostContainer::new(pid, cgroup))))
    }

    /// Whether runc's shim runs it.
    pub fn has_runcs_shim(&self) -> bool {
        self.traces().has_runcs_shim()
    }

    /// The pid of its shim: as the shim has noted it (see [`Bundle::shim_pid`]), or the parent of the process that the
    /// shim started.
    pub fn shim_pid(&self) -> Option<u32> {
        self.traces().shim_pid()
    }

    /// The same, only where a process with that pid was started as a shim of this container or of its sandbox.
    pub(crate) fn running_shim_pid(&self) -> Option<u32> {
        let traces = self.traces();
        traces.shim_pid().filter(|pid| traces.is_my_shim(*pid))
    }

    /// The runtime that runs it, read once for a container that has been there for a while. `None` also where something that
    /// tells it could not be read.
    pub fn remembered_runtime(&self) -> Option<Arc<Runtime>> {
        if let Some(known) = self.runtime.get() {
            return known.clone();
        }
        let read = self.runtime().map(Arc::new);
        if self.unread_note().is_some() {
            return None;
        }
        match self.is_settled() {
            true => self.runtime.get_or_init(|| read).clone(),
            false => read,
        }
    }

    /// Whether it is so old that all is noted of it that will be.
    fn is_settled(&self) -> bool {
        let created = self.bundle.created().ok();
        let age = created.map(|created| SystemTime::now().duration_since(created));
        matches!(age, Some(Ok(age)) if age > NOTED_WITHIN)
    }

    /// Which kind of shim answers for it. Remembered: it is read once for each container.
    pub fn answerer(&self) -> Answerer {
        if let Some(known) = self.answerer.get() {
            return *known;
        }
        // Most containers are runc's, and nothing else has to be read of them.
        if self.bundle.names_runcs_shim() {
            return *self.answerer.get_or_init(|| Answerer::RuncShim);
        }
        let runtime = self.runtime();
        let is_final = self.unread_note().is_none() && (runtime.is_some() || self.is_settled());
        let answerer = runtime.map_or(Answerer::OtherShim, |runtime| Answerer::shim_of(&runtime.name));
        match is_final {
            true => *self.answerer.get_or_init(|| answerer),
            false => answerer,
        }
    }

    /// What people call it: `namespace/pod` for a sandbox, `namespace/pod/container` for a container in one, its own name
    /// for a plain container; `None` where a part of that is not known. Untrusted text.
    pub fn name(&self) -> Option<String> {
        let names = self.names();
        let pod = || Some(format!("{}/{}", names.namespace.as_ref()?, names.name.as_ref()?));
        match self.role() {
            Role::Plain => names.own.clone(),
            Role::Sandbox => pod(),
            Role::InSandbox(_) => Some(format!("{}/{}", pod()?, names.container.as_ref()?)),
        }
    }
}

impl Description {
    fn of(spec: Spec, bundle: &Bundle) -> Self {
        let role = spec.annotations.role(&bundle.id);
        let mut names = spec.annotations.names();
        if role == Role::Plain && names.own.is_none() {
            names.own = match bundle.layout {
                // Docker's namespace.
                Layout::Task if bundle.namespace == "moby" => docker::name(bundle),
                Layout::Storage => bundle.conmon().and_then(|conmon| conmon.name),
                Layout::Task | Layout::Sandbox => None,
            };
        }
        Self {
            role,
            names,
            handler: spec.annotations.handler().map(str::to_string),
            cgroups_path: spec.cgroups_path,
            network_namespace: spec.network_namespace,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::path::Path;

    /// A container at `namespace/id`, with its pod's namespace and name and its own name in it.
    pub fn container(path: &str, role: Role, names: [Option<&str>; 3]) -> Arc<Container> {
        let [pod_namespace, name, container] = names.map(|name| name.map(str::to_string));
        let (namespace, id) = path.split_once('/').unwrap();
        let bundle = Bundle::of_task(namespace, id, Path::new("/run/containerd/tasks").join(path));
        let names = PodNames {
            namespace: pod_namespace,
            name,
            container,
            ..PodNames::NONE
        };
        let description = Description {
            role,
            names,
            ..Description::default()
        };
        let endpoint = Endpoint::from_address_file(&format!("unix:///run/s/{id}")).unwrap();
        Arc::new(Container::new(bundle, Ok(Source::Task(endpoint)), description))
    }

    #[test]
    fn a_spec_that_cannot_be_read_leaves_the_container_plain_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = Bundle::of_task("default", "c1", dir.path());
        assert!(Container::read(bundle.clone()).is_none(), "it is being created");
        std::fs::write(dir.path().join("address"), "unix:///run/s").unwrap();
        std::fs::write(dir.path().join("config.json"), "{").unwrap();
        let container = Container::read(bundle.clone()).unwrap();
        assert_eq!(container.role(), &Role::Plain);
        let error = container.description().unwrap_err().to_string();
        assert!(error.contains("config.json: not an OCI spec"), "{error}");
        std::fs::write(dir.path().join("bootstrap.json"), "{").unwrap();
        let error = Container::read(bundle).unwrap().source.unwrap_err().to_string();
        assert!(error.contains("bootstrap.json"), "{error}");
    }

    #[test]
    fn a_runtime_is_not_remembered_while_a_note_of_it_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = Bundle::of_task("default", "c1", dir.path());
        std::fs::write(dir.path().join("address"), "unix:///run/s").unwrap();
        let spec = std::fs::File::create(dir.path().join("config.json")).unwrap();
        spec.set_modified(SystemTime::now() - Duration::from_secs(3600))
            .unwrap();
        let note = dir.path().join("shim-binary-path");
        std::fs::create_dir(&note).unwrap();
        let container = Container::read(bundle).unwrap();
        assert_eq!(container.answerer(), Answerer::OtherShim);
        assert_eq!(container.remembered_runtime(), None);
        assert_eq!(container.unread_note().unwrap().path, note);
        std::fs::remove_dir(&note).unwrap();
        std::fs::write(&note, "/usr/bin/containerd-shim-runsc-v1").unwrap();
        assert_eq!(container.answerer(), Answerer::GvisorShim);
        assert_eq!(container.remembered_runtime().unwrap().name, "gvisor");
        assert!(container.unread_note().is_none());
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
