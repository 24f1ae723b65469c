//! Answers about containers that have no shim: what the kernel says of their process and their cgroup.

use std::time::Instant;

use super::ended::ended;
use super::error::AskError;
use super::question::{Calls, Origin, Reply, ReplyStats};
use crate::node::cgroup::{Cgroup, CgroupError, CgroupMounts};
use crate::node::{Container, ReadError};
use crate::shim::task::{TaskState, TaskStatus};

/// Answers about a container. Reads some 25 small files, which takes 0.3 ms.
pub(super) fn ask(container: &Container, calls: Calls) -> Result<Reply, AskError> {
    let found = match container.bundle.init_pid() {
        Some(pid) => cgroup(container, pid)?.map(|cgroup| (pid, cgroup)),
        None => None,
    };
    let Some((pid, cgroup)) = found else {
        return Ok(Reply {
            state: ended(container),
            stats: ReplyStats::None,
        });
    };
    let state = TaskState {
        status: if cgroup.is_frozen() {
            TaskStatus::Paused
        } else {
            TaskStatus::Running
        },
        pid,
        exit_status: None,
        exited_at: None,
    };
    if !calls.wants_statistics() {
        return Ok(Reply {
            state,
            stats: ReplyStats::None,
        });
    }
    Ok(match cgroup.stats() {
        Some(stats) => Reply {
            state,
            stats: ReplyStats::Taken(Box::new(stats), Instant::now(), Origin::Cgroup),
        },
        // It has gone since.
        None => Reply {
            state: ended(container),
            stats: ReplyStats::None,
        },
    })
}

/// The cgroup of a container whose first process has this pid; `None` where that process has ended.
fn cgroup(container: &Container, pid: u32) -> Result<Option<Cgroup>, AskError> {
    let mounts = CgroupMounts::host().map_err(|error| AskError::Cgroup(error.into()))?;
    match mounts.of_process(pid, container.id(), container.cgroups_path()) {
        Ok(cgroup) => Ok(Some(cgroup)),
        // Its pid is nobody's, or another's.
        Err(CgroupError::OtherContainer { .. } | CgroupError::NotFound { .. }) => Ok(None),
        Err(CgroupError::Read(error)) if has_ended(&error) => Ok(None),
        Err(error) => Err(AskError::Cgroup(error)),
    }
}

fn has_ended(error: &ReadError) -> bool {
    error.is_missing() || error.source.raw_os_error() == Some(libc::ESRCH)
}
