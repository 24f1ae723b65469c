//! Containers for the tests of the view.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shimstat::node::{BundleError, Container, Description, PodNames, Role};
use shimstat::shim::address::AddressError;
use shimstat::shim::task::{TaskState, TaskStatus};
use shimstat::stats::{Interface, Stats};
use shimstat::survey::{AskError, Origin, Sample};

use super::row::TopRow;
use super::tree::{Kind, Line, Tree};
use crate::fixtures::container;

/// A row without an answer yet, of a container in this sandbox or in none.
pub fn row(id: &str, sandbox: Option<&str>) -> TopRow {
    let role = sandbox.map_or(Role::Plain, |sandbox| Role::InSandbox(sandbox.into()));
    let names = PodNames {
        container: sandbox.map(|_| id.to_string()),
        ..PodNames::default()
    };
    new(id, role, names)
}

/// A row of a sandbox.
pub fn pod(id: &str, namespace: &str, name: &str) -> TopRow {
    let names = PodNames {
        namespace: Some(namespace.into()),
        name: Some(name.into()),
        ..PodNames::default()
    };
    new(id, Role::Sandbox, names)
}

fn new(id: &str, role: Role, names: PodNames) -> TopRow {
    TopRow::new(container(id, role, names))
}

/// The answer about a container whose shim's address is not known.
pub fn no_address() -> AskError {
    AskError::NoAddress(empty_address())
}

fn empty_address() -> Arc<BundleError> {
    Arc::new(BundleError::Address {
        path: "/run/x/address".into(),
        source: AddressError::Empty,
    })
}

/// Such a container.
pub fn without_address(id: &str) -> Arc<Container> {
    let bundle = row(id, None).container.bundle.clone();
    Arc::new(Container::new(
        bundle,
        Err(empty_address()),
        Description::default(),
    ))
}

/// These rows by pod.
pub fn tree(rows: Vec<TopRow>) -> Tree {
    let mut tree = Tree::default();
    tree.update(rows.iter().map(|row| row.container.clone()).collect());
    for row in rows {
        let id = row.container.id().to_string();
        *row_of(&mut tree, &id) = row;
    }
    tree
}

/// The row of a container.
pub fn row_of<'a>(tree: &'a mut Tree, id: &str) -> &'a mut TopRow {
    tree.rows_mut().find(|row| row.container.id() == id).unwrap()
}

/// The ids of lines; those of containers in pods with a branch before them.
pub fn shown(tree: &Tree, lines: &[Line]) -> Vec<String> {
    let id = |line| match tree.row(line) {
        Some(row) => row.container.id(),
        None => tree.group(line).unwrap().id.as_str(),
    };
    lines
        .iter()
        .map(|line| match line.kind {
            Kind::Member { last: true, .. } => format!("`-{}", id(line)),
            Kind::Member { last: false, .. } => format!("|-{}", id(line)),
            Kind::Pod {
                folded: true,
                members,
            } => format!("+{}({members})", id(line)),
            Kind::Pod { folded: false, .. } | Kind::Plain => id(line).to_string(),
        })
        .collect()
}

/// A sample that was taken this many seconds after the start.
pub fn sample(start: Instant, seconds: u64, change: impl FnOnce(&mut Stats)) -> Sample {
    let mut stats = Stats::default();
    change(&mut stats);
    Sample {
        state: TaskState {
            status: TaskStatus::Running,
            pid: 4321,
            exit_status: None,
            exited_at: None,
        },
        stats,
        taken: start + Duration::from_secs(seconds),
        origin: Origin::Shim,
    }
}

/// Makes a container use this much of a processor (in per cent) and of memory, and some network, by two samples that are
/// two seconds apart.
pub fn using(mut row: TopRow, cpu: f64, memory: u64) -> TopRow {
    let start = Instant::now();
    let stats = |part: f64| {
        move |stats: &mut Stats| {
            stats.cpu.usage.total = Some(1_000_000_000 + (cpu * 2e7 * part) as u64);
            stats.memory.usage.usage = Some(memory);
            stats.pids.current = Some(3);
            stats.network = Some(vec![Interface {
                name: "eth0".into(),
                rx_bytes: (4096.0 * part) as u64,
                tx_bytes: (1024.0 * part) as u64,
                ..Interface::default()
            }]);
        }
    };
    row.take(Ok(sample(start, 0, stats(0.0))));
    row.take(Ok(sample(start, 2, stats(1.0))));
    row
}
