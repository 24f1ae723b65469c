//! The text of a cgroup's files, by their forms.

use std::collections::BTreeMap;

use crate::stats::model::Pids;

/// The version of a cgroup, which decides on the names of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupVersion {
    /// A hierarchy for each controller or a few of them.
    V1,
    /// One hierarchy for all controllers.
    V2,
}

/// The text of a cgroup's file by its name, such as `memory.stat`; `None` where there is none. On cgroup v1 the
/// part of the name before the first dot names the controller, each of which has a directory of its own.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The files of one cgroup.
pub struct Files<'a>(pub ReadFile<'a>);

impl Files<'_> {
    /// A file of one word.
    pub fn word(&self, name: &str) -> Option<String> {
        let text = (self.0)(name)?;
        let word = text.trim_end();
        (!word.is_empty()).then(|| word.to_owned())
    }

    /// A file of one number, in which `max` is 2^64-1, as runtimes send it.
    pub fn number(&self, name: &str) -> Option<u64> {
        number(&self.word(name)?)
    }

    /// A file with a key and a number in each line. Lines of another form are left out.
    pub fn keyed(&self, name: &str) -> Option<BTreeMap<String, u64>> {
        let text = (self.0)(name)?;
        let pairs = text.lines().filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim_end().parse().ok()?))
        });
        Some(pairs.collect())
    }

    /// The same on both versions, where a file has all threads of the cgroup and its children.
    pub fn pids(&self) -> Pids {
        Pids {
            current: self.number("pids.current"),
            limit: self.number("pids.max").filter(|limit| *limit != u64::MAX),
        }
    }
}

pub fn number(word: &str) -> Option<u64> {
    match word {
        "max" => Some(u64::MAX),
        word => word.parse().ok(),
    }
}
