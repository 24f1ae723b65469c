//! The state of a container that has stopped, where its shim is not asked.

use crate::node::{Container, EndRecord};
use crate::shim::task::{TaskState, TaskStatus};

/// That it has stopped, with what its manager has noted of its end.
pub(super) fn ended(container: &Container) -> TaskState {
    let ended = EndRecord::of(&container.bundle).and_then(|record| record.read());
    let ended = ended.unwrap_or_default();
    TaskState {
        status: TaskStatus::Stopped,
        pid: 0,
        exit_status: ended.exit_status,
        exited_at: ended.exited_at,
    }
}
