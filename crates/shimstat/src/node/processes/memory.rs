//! A sandbox's memory on the host in parts that add up: the guest's, the VMM's own, virtiofsd's, the shim's.
//!
//! There are two ways to it. `/proc/<pid>/status` costs 25 µs a process, and tells guest memory from the VMM's own
//! where the guest's is shared with virtiofsd or made of huge pages, which is so with Kata's defaults.
//! `/proc/<pid>/smaps` tells it always, and what each process has for itself among those that map the same files; the
//! kernel walks every page for it, 11 ms (idle machine) to 40 ms (busy one) for each GiB touched in pages of 4 KiB.
//! `smaps_rollup` takes as long and does not tell the mappings apart.

use std::io::{self, Read};
use std::path::Path;

use super::host::{HostProcesses, Part};
use super::usage::ProcessUsage;
use crate::node::files::{self, ReadError};
use crate::node::machine::MachineKind;
use crate::node::proc_fs::{Roots, field};

/// A mapping takes about 700 bytes: room for 12,000.
const MAPPINGS_LIMIT: usize = 8 << 20;

/// Fewer bytes than any mapping takes.
const SHORTEST_MAPPING: usize = 256;

/// A Linux guest touches this much while it boots.
const LEAST_GUEST: u64 = 16 << 20;

/// The least size of a mapping without a name that is taken for guest memory. glibc's heaps take 64 MiB at most, and
/// memory is plugged into a guest in blocks of 128 MiB.
const LEAST_GUEST_MAPPING: u64 = 128 << 20;

/// The memory of a sandbox's processes, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxMemory {
    /// What the guest has touched, and its balloon has not given back. `None` where it is not known: then what of it
    /// is in a process at all is in the VMM's own part.
    pub guest: Option<GuestMemory>,
    /// What each part has beside it. `None` where the kernel does not say.
    pub own: Vec<(Part, Option<u64>)>,
}

/// Guest memory by what the host made it of, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GuestMemory {
    /// The VMM's alone.
    pub anonymous: u64,
    /// Shared with virtiofsd.
    pub shared: u64,
    /// Huge pages of hugetlbfs, which no memory cgroup counts as memory.
    pub huge_pages: u64,
}

/// Why the mappings of a sandbox's processes were not read.
#[derive(Debug, thiserror::Error)]
pub enum MappingsError {
    /// A file of `/proc` could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The kernel walks every resident page, and there are too many.
    #[error(
        "process {pid} has {resident} bytes resident: reading the mappings of more than {most} takes too long"
    )]
    TooMuch {
        /// The first process that has more than that.
        pid: u32,
        /// What it has resident, in bytes.
        resident: u64,
        /// The most that is read, in bytes.
        most: u64,
    },
}

impl GuestMemory {
    /// All of it, in bytes.
    pub fn total(&self) -> u64 {
        self.anonymous
            .saturating_add(self.shared)
            .saturating_add(self.huge_pages)
    }
}

impl SandboxMemory {
    /// From what `/proc/<pid>/status` said of the processes. Mapped files count in full with each process that maps
    /// them, though the page cache has them once.
    pub fn of(processes: &[HostProcesses], kind: MachineKind) -> Self {
        let mut memory = Self {
            guest: None,
            own: Vec::new(),
        };
        for part in processes {
            let mut own = part.memory();
            if let Some(guest) = is_vmm(part)
                .filter(|_| kind.shows_memory())
                .and_then(guest_by_status)
            {
                own = own.and_then(|all| all.checked_sub(guest.total()));
                memory.guest = Some(guest);
            }
            memory.own.push((part.part, own));
        }
        memory
    }

    /// From the mappings of the processes. What several processes map is shared out among them (`Pss`), except for
    /// guest memory, which is the guest's.
    ///
    /// Takes 11 to 40 ms for each GiB that is resident in pages of 4 KiB: call it rarely, and not on a thread that
    /// others wait for. The VMM cannot change its mappings meanwhile. Where a process has more than `most` bytes
    /// resident, nothing is read.
    pub fn read_mappings(
        processes: &[HostProcesses],
        kind: MachineKind,
        most: u64,
    ) -> Result<Self, MappingsError> {
        Self::read_mappings_in(Roots::host(), processes, kind, most)
    }

    fn read_mappings_in(
        roots: Roots<'_>,
        processes: &[HostProcesses],
        kind: MachineKind,
        most: u64,
    ) -> Result<Self, MappingsError> {
        let each = || processes.iter().flat_map(|part| &part.processes);
        for process in each() {
            let resident = process.memory.resident().unwrap_or(0);
            if resident > most {
                let pid = process.pid;
                return Err(MappingsError::TooMuch { pid, resident, most });
            }
        }
        let mut memory = Self {
            guest: None,
            own: Vec::new(),
        };
        for part in processes {
            let vmm = is_vmm(part);
            let mut own = 0_u64;
            // The kernel threads of vhost have no mappings.
            for process in part.processes.iter().filter(|_| part.part != Part::Vhost) {
                let text = read_mappings(&roots.path(process.pid, "smaps"))?;
                let (guest, rest) = sort_mappings(&text, vmm.is_some());
                own = own.saturating_add(rest);
                if vmm.is_some() && kind.shows_memory() {
                    memory.guest = Some(guest);
                } else if vmm.is_some() {
                    own = own.saturating_add(guest.total());
                }
            }
            memory.own.push((part.part, Some(own)));
        }
        Ok(memory)
    }

    /// The guest's memory and that of all parts; `None` where one of them is not known, or there is none.
    pub fn total(&self) -> Option<u64> {
        let guest = self.guest.map_or(0, |guest| guest.total());
        let own = self.own.iter().map(|(_, own)| *own).sum::<Option<u64>>()?;
        (!self.own.is_empty()).then(|| own.saturating_add(guest))
    }
}

/// Reads an `smaps` file, a mapping a call. With more room the kernel fills a page, throws away the mapping that does not
/// fit in, and walks it again for the next call: that takes up to twice as long (fs/seq_file.c; measured).
fn read_mappings(path: &Path) -> Result<String, ReadError> {
    let error = |source| ReadError {
        path: path.to_path_buf(),
        source,
    };
    let mut file = files::open(path).map_err(error)?;
    let mut text = Vec::new();
    let mut chunk = [0; SHORTEST_MAPPING];
    loop {
        let length = file.read(&mut chunk).map_err(error)?;
        text.extend_from_slice(chunk.get(..length).unwrap_or_default());
        if length == 0 {
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
        if text.len() > MAPPINGS_LIMIT {
            return Err(error(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("longer than {MAPPINGS_LIMIT} bytes"),
            )));
        }
    }
}

fn is_vmm(part: &HostProcesses) -> Option<&ProcessUsage> {
    matches!(part.part, Part::Vmm | Part::ShimAndVmm).then(|| part.processes.first())?
}

/// Shared memory and huge pages of a VMM are its guest's. Where it has none, the guest's memory is anonymous as the
/// VMM's own is, and the two are not told apart here.
fn guest_by_status(vmm: &ProcessUsage) -> Option<GuestMemory> {
    let guest = GuestMemory {
        anonymous: 0,
        shared: vmm.memory.rss_shmem?,
        huge_pages: vmm.memory.hugetlb.unwrap_or(0),
    };
    (guest.total() >= LEAST_GUEST).then_some(guest)
}

/// What of a process's mappings is guest memory, and the process's share of the rest, in bytes.
pub(in crate::node) fn sort_mappings(smaps: &str, is_vmm: bool) -> (GuestMemory, u64) {
    let mut guest = GuestMemory::default();
    let mut rest = 0_u64;
    for (header, fields) in mappings(smaps) {
        let bytes = |key| field(fields, key).unwrap_or(0);
        let huge = bytes("Shared_Hugetlb").saturating_add(bytes("Private_Hugetlb"));
        guest.huge_pages = guest.huge_pages.saturating_add(huge);
        if header.is_memory_file() || (is_vmm && header.is_large_and_anonymous()) {
            let (resident, anonymous) = (bytes("Rss"), bytes("Anonymous"));
            guest.anonymous = guest.anonymous.saturating_add(anonymous);
            guest.shared = guest.shared.saturating_add(resident.saturating_sub(anonymous));
        } else {
            rest = rest.saturating_add(bytes("Pss"));
        }
    }
    (guest, rest)
}

/// The first line of a mapping: `7f1c4a000000-7f1c6a000000 rw-s 00000000 00:01 1027  /memfd:ram (deleted)`.
#[derive(Debug, Clone, Copy)]
struct Header<'a> {
    size: u64,
    permissions: &'a str,
    /// Its file, or a name such as `[heap]`; empty without one.
    name: &'a str,
}

impl<'a> Header<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let address = |text| u64::from_str_radix(text, 16).ok();
        let size = address(end)?.checked_sub(address(start)?)?;
        let (permissions, rest) = rest.split_once(' ')?;
        // Offset, device, inode; a name may have blanks in it.
        let name = rest.trim_start().splitn(4, ' ').nth(3).unwrap_or("").trim();
        Some(Self {
            size,
            permissions,
            name,
        })
    }

    fn is_data(self) -> bool {
        let has = |permission| self.permissions.contains(permission);
        has('w') && !has('x')
    }

    /// Whether it is memory that has a file only to be shared: by QEMU's `memory-backend-file` and `-memfd`, Cloud
    /// Hypervisor's and Firecracker's memfd, or Kata's template of a machine.
    fn is_memory_file(self) -> bool {
        self.is_data()
            && [
                "/memfd:",
                "/dev/shm/",
                "/dev/hugepages",
                "/dev/zero",
                "/run/vc/vm/template",
            ]
            .iter()
            .any(|place| self.name.starts_with(place))
    }

    fn is_large_and_anonymous(self) -> bool {
        let unnamed = self.name.is_empty()
            || (self.name.starts_with("[anon:") && !self.name.starts_with("[anon: glibc"));
        unnamed && self.is_data() && self.size >= LEAST_GUEST_MAPPING
    }
}

/// The mappings of an `smaps` file, each with the lines of its fields.
fn mappings(smaps: &str) -> impl Iterator<Item = (Header<'_>, &str)> {
    let mut rest = smaps;
    std::iter::from_fn(move || {
        loop {
            let (line, after) = rest.split_once('\n')?;
            rest = after;
            let Some(header) = Header::parse(line) else {
                continue;
            };
            // Fields begin with a capital letter, mappings with a digit of their address.
            let mut end = 0;
            for line in rest.split_inclusive('\n') {
                if !line.starts_with(|first: char| first.is_ascii_uppercase()) {
                    break;
                }
                end += line.len();
            }
            let (fields, after) = rest.split_at_checked(end)?;
            rest = after;
            return Some((header, fields));
        }
    })
}

#[cfg(test)]
mod tests;
