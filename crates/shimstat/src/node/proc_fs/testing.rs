//! A tree like `/proc` and `/sys/fs/cgroup`, for tests.

use std::fs;
use std::path::Path;

use super::Roots;
use crate::node::cgroup::CgroupMounts;

pub(in crate::node) struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn roots(&self) -> Roots<'_> {
        Roots {
            proc: self.dir.path(),
        }
    }

    /// Writes a file of a process, or in the form `task/<tid>/<file>` of one of its threads.
    pub fn file(&self, pid: u32, name: &str, text: &str) -> &Self {
        self.write(&format!("{pid}/{name}"), text)
    }

    pub fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// Hierarchies of cgroups mounted in directories of the tree: their names, types and options.
    pub fn mounts(&self, mounts: &[(&str, &str, &str)]) -> CgroupMounts {
        let proc = self.dir.path();
        let line = |(name, fs_type, options): &(&str, &str, &str)| {
            format!(
                "30 29 0:26 / {} rw - {fs_type} none {options}\n",
                proc.join(name).display()
            )
        };
        self.write("self/mountinfo", &mounts.iter().map(line).collect::<String>());
        CgroupMounts::read_in(proc, &proc.join("hugepages")).unwrap()
    }

    /// A process that has run for so many clock ticks in user mode, with no memory.
    pub fn process(&self, pid: u32, name: &str, parent: u32, ticks: u64) -> &Self {
        self.file(pid, "stat", &stat(pid, name, parent, 0, ticks, 0))
            .file(pid, "status", &format!("Name:\t{name}\nTgid:\t{pid}\n"))
    }

    /// A process with memory in kB.
    pub fn with_memory(&self, pid: u32, anon: u64, file: u64, shmem: u64, hugetlb: u64) -> &Self {
        let rss = anon + file + shmem;
        let status = format!(
            "Tgid:\t{pid}\nVmRSS:\t{rss} kB\nRssAnon:\t{anon} kB\nRssFile:\t{file} kB\nRssShmem:\t{shmem} kB\n\
             HugetlbPages:\t{hugetlb} kB\n"
        );
        self.file(pid, "status", &status)
    }

    pub fn kernel_thread(&self, pid: u32, name: &str, ticks: u64) -> &Self {
        self.file(pid, "stat", &stat(pid, name, 2, 0x0020_8040, ticks, 0))
            .file(pid, "status", &format!("Name:\t{name}\nTgid:\t{pid}\n"))
    }

    /// A thread with its scheduler's times in nanoseconds, and the ticks in which it ran a guest.
    pub fn thread(&self, pid: u32, tid: u32, name: &str, times: Option<(u64, u64)>, guest: u64) -> &Self {
        self.file(pid, &format!("task/{tid}/stat"), &stat(tid, name, 1, 0, 0, guest));
        if let Some((run, wait)) = times {
            self.file(
                pid,
                &format!("task/{tid}/schedstat"),
                &format!("{run} {wait} 17\n"),
            );
        }
        self
    }

    pub fn children(&self, pid: u32, of: &str) -> &Self {
        self.file(pid, &format!("task/{pid}/children"), of)
    }
}

/// A `stat` file; the numbers of fields that are not used are those of proc(5).
fn stat(pid: u32, name: &str, parent: u32, flags: u64, ticks: u64, guest: u64) -> String {
    let rest: Vec<String> = (23..=42).map(|field| field.to_string()).collect();
    format!(
        "{pid} ({name}) S {parent} 5 6 7 8 {flags} 10 11 12 13 {ticks} 0 16 17 18 19 20 21 777 {} {guest} 44\n",
        rest.join(" ")
    )
}
