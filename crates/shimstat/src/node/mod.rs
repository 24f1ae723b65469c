//! Which containers and sandboxes are on this node: the bundles of containerd, CRI-O and podman, and the monitor sockets
//! of sandboxes. Reads files and nothing else; containerd itself is not asked, and need not run.
//!
//! The places and the order in which containerd writes them were seen on containerd 1.6.20, 1.7.24, 2.1.9 and 2.3.4, those
//! of CRI-O on 1.37.

mod agent_note;
mod annotations;
mod bundle;
pub mod cgroup;
mod conmon;
mod container;
pub mod device;
mod docker;
mod ended;
mod files;
mod find;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod guest_volumes;
pub mod gvisor;
mod host_container;
pub mod hypervisor;
mod id;
pub mod init_process;
mod inventory;
mod layer;
mod machine;
pub mod monitor;
mod mountinfo;
mod names;
pub(crate) mod network;
mod oci_state;
pub mod pace;
mod places;
mod pods;
mod proc_fs;
pub mod processes;
mod root_filesystem;
mod rootless;
mod runtime;
mod shelf;
mod spec;
pub(crate) mod starting;
mod state_dirs;

pub use agent_note::noted_agent;
pub use annotations::{PodNames, Role};
pub use bundle::{Bundle, BundleError, Layout};
pub use container::{Container, Description, Source};
pub use ended::{EndRecord, Ended};
pub use files::ReadError;
pub use find::FindError;
pub use guest_volumes::GuestVolume;
pub use host_container::{HostContainer, HostReadings, RootReadings};
pub use id::{Id, IdError};
pub use inventory::Inventory;
pub use machine::{GuestProtection, MachineKind};
pub use names::Wanted;
pub use network::{NetworkNamespace, interfaces_of_task};
pub use places::{Place, PlaceFound, USUAL_PLACES, UsualPlace, usual_places};
pub use pods::{Pod, name_sandboxes, pods};
pub use processes::{HostProcesses, Part, ProcessMemory, ProcessUsage, host_processes};
pub use root_filesystem::{FilesystemSpace, RootFilesystem};
pub use runtime::Runtime;
pub use state_dirs::Node;
