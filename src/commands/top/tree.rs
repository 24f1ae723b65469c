//! The lines of the view: pods with their containers under them, and containers in no pod.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shimstat::node::processes::ResourceUse;
use shimstat::node::{Container, Pod, pods};
use shimstat::survey::{AskError, Origin, Sample};

use super::row::{Health, History, TopRow};
use crate::show::field::{Facts, Field};
use crate::show::fields;
use crate::show::name::{Labels, short_id};

/// Identifies a line: the path of its bundle, or of its sandbox's for a pod.
pub type RowKey = PathBuf;

/// The key that sorts by name; the others are those of the [fields](fields::sorted_by).
pub const BY_NAME: char = 'a';

/// How the lines are chosen and sorted.
#[derive(Debug, Clone)]
pub struct TreeOrder {
    /// The key that was pressed to sort.
    pub sort: char,
    /// Reversed: the smallest number first, the last name first.
    pub reverse: bool,
    /// Shows only what contains this text; an empty one matches everything.
    pub filter: String,
    /// Pods whose containers are not shown.
    pub folded: HashSet<RowKey>,
}

/// What a line stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A pod, and how many containers are in it.
    Pod { folded: bool, members: usize },
    /// A container of the pod above: its index, and whether it is the last one shown.
    Member { index: usize, last: bool },
    /// A container in no pod.
    Plain,
}

/// A line of the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// The index of its group.
    group: usize,
    pub kind: Kind,
}

/// A pod, or a container in no pod.
#[derive(Debug)]
pub struct Group {
    pub key: RowKey,
    /// The sandbox's id.
    pub id: String,
    /// Its name for people. Untrusted text.
    pub title: String,
    /// `None` also for a sandbox without a bundle.
    pub sandbox: Option<TopRow>,
    /// The containers other than the sandbox's own.
    pub members: Vec<TopRow>,
    is_pod: bool,
    /// Their percentage of one processor together; empty for a container in no pod, whose row has it.
    pub cpu: History,
}

/// Everything on the node, by pod.
#[derive(Debug, Default)]
pub struct Tree {
    groups: Vec<Group>,
    /// What the groups were made from.
    containers: Vec<Arc<Container>>,
}

impl Tree {
    /// Takes the containers that are on the node now: new ones are added, others removed, and the rest keep what is known
    /// about them. A container that was recreated with the same id is new.
    pub fn update(&mut self, containers: Vec<Arc<Container>>) {
        let same = |(old, new): (&Arc<Container>, &Arc<Container>)| Arc::ptr_eq(old, new);
        if self.containers.len() == containers.len() && self.containers.iter().zip(&containers).all(same) {
            // Usually nothing has changed.
            return;
        }
        let mut histories = HashMap::with_capacity(self.groups.len());
        let mut known: HashMap<RowKey, TopRow> = HashMap::with_capacity(containers.len());
        for group in self.groups.drain(..) {
            histories.insert(group.key, group.cpu);
            let rows = group.sandbox.into_iter().chain(group.members);
            known.extend(rows.map(|row| (row.container.bundle.path.clone(), row)));
        }
        let mut row = |container: Arc<Container>| match known.remove(&container.bundle.path) {
            Some(row) if Arc::ptr_eq(&row.container, &container) => row,
            _ => TopRow::new(container),
        };
        let pods = pods(&containers);
        let titles = pods
            .iter()
            .filter_map(|pod| Some((title(pod), &pod.first()?.bundle)));
        let labels = Labels::new(titles);
        self.groups = pods
            .into_iter()
            .map(|pod| Group {
                title: match pod.first() {
                    Some(first) => labels.distinct(&title(&pod), &first.bundle).into_owned(),
                    None => title(&pod),
                },
                is_pod: !pod.is_plain(),
                sandbox: pod.sandbox.map(&mut row),
                members: pod.containers.into_iter().map(&mut row).collect(),
                cpu: histories.remove(&pod.key).unwrap_or_default(),
                key: pod.key,
                id: pod.id,
            })
            .collect();
        self.containers = containers;
    }

    /// Takes the answer of a container's shim. The container may be gone by now.
    pub fn answer(&mut self, container: &Arc<Container>, answer: Result<Sample, AskError>) {
        let row = self.rows_mut().find(|row| Arc::ptr_eq(&row.container, container));
        if let Some(row) = row {
            row.take(answer);
        }
    }

    /// Adds to the pods' histories, once the answers of a tick have arrived.
    pub fn note_pods(&mut self) {
        for group in self.groups.iter_mut().filter(|group| group.is_pod) {
            let cpu = group.number(&fields::CPU);
            group.cpu.push(cpu);
        }
    }

    pub fn pods(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|group| group.is_pod)
    }

    pub fn containers(&self) -> &[Arc<Container>] {
        &self.containers
    }

    pub fn rows(&self) -> impl Iterator<Item = &TopRow> {
        self.groups.iter().flat_map(Group::rows)
    }

    pub fn rows_mut(&mut self) -> impl Iterator<Item = &mut TopRow> {
        self.groups.iter_mut().flat_map(Group::rows_mut)
    }

    /// The lines to show, in their order.
    pub fn lines(&self, order: &TreeOrder) -> Vec<Line> {
        let mut lines = Vec::new();
        let groups = self.groups.iter().enumerate();
        let mut shown: Vec<_> = groups
            .filter_map(|(index, group)| group.lines(index, order))
            .collect();
        shown.sort_by_cached_key(|(line, _)| Rank::new(self, line, order));
        for (line, mut members) in shown {
            lines.push(line);
            members.sort_by_cached_key(|member| Rank::new(self, member, order));
            if let Some(Line {
                kind: Kind::Member { last, .. },
                ..
            }) = members.last_mut()
            {
                *last = true;
            }
            lines.extend(members);
        }
        lines
    }

    pub fn group(&self, line: &Line) -> Option<&Group> {
        self.groups.get(line.group)
    }

    /// The container of a line: for a pod its sandbox's, if that has a bundle.
    pub fn row(&self, line: &Line) -> Option<&TopRow> {
        let group = self.group(line)?;
        match line.kind {
            Kind::Pod { .. } => group.sandbox.as_ref(),
            Kind::Member { index, .. } => group.members.get(index),
            Kind::Plain => group.members.first(),
        }
    }

    pub fn key(&self, line: &Line) -> Option<&RowKey> {
        match line.kind {
            Kind::Pod { .. } => Some(&self.group(line)?.key),
            Kind::Member { .. } | Kind::Plain => Some(&self.row(line)?.container.bundle.path),
        }
    }

    /// A line's name for people. Untrusted text.
    pub fn name(&self, line: &Line) -> &str {
        let name = match line.kind {
            Kind::Pod { .. } | Kind::Plain => self.group(line).map(|group| group.title.as_str()),
            Kind::Member { .. } => self.row(line).map(TopRow::name_in_pod),
        };
        name.unwrap_or_default()
    }

    /// A number of a line; for a pod, that of everything in it.
    pub fn number(&self, line: &Line, field: &Field) -> Option<f64> {
        match line.kind {
            Kind::Pod { .. } => self.group(line)?.number(field),
            Kind::Member { .. } | Kind::Plain => field.of(&self.row(line)?.facts()),
        }
    }

    /// A line's past CPU usage.
    pub fn cpu(&self, line: &Line) -> Option<&History> {
        match line.kind {
            Kind::Pod { .. } => Some(&self.group(line)?.cpu),
            Kind::Member { .. } | Kind::Plain => Some(&self.row(line)?.cpu),
        }
    }
}

/// `namespace/pod`, the name of a container in no pod, or the short id.
fn title(pod: &Pod) -> String {
    let names = pod.names();
    let name = match pod.is_plain() {
        true => names.own.clone(),
        false => names.pod(),
    };
    name.unwrap_or_else(|| short_id(&pod.id).to_string())
}

impl Group {
    /// The container that leads to the pod's processes on the host: its sandbox's, or another if that has no bundle.
    pub fn main(&self) -> Option<&TopRow> {
        self.rows().next()
    }

    /// What each of its containers uses that is not known to have stopped.
    pub fn uses(&self) -> Vec<ResourceUse> {
        let of = |facts: Facts<'_>| {
            let stats = facts.sample.map(|sample| &sample.stats);
            ResourceUse {
                cpu: stats
                    .and_then(|stats| stats.cpu.usage.total)
                    .map(Duration::from_nanos),
                memory: stats.and_then(|stats| stats.memory.usage.usage),
            }
        };
        self.rows()
            .filter_map(|row| row.facts_if_running())
            .map(of)
            .collect()
    }

    /// Its containers, the sandbox's own first.
    pub fn containers(&self) -> impl Iterator<Item = &Arc<Container>> {
        self.rows().map(|row| &row.container)
    }

    /// Whether it runs, in a guest of Kata's.
    pub fn may_have_guest(&self) -> bool {
        self.rows().any(|row| {
            let sample = row
                .sample
                .as_ref()
                .filter(|_| matches!(row.health, Health::Answers(_)));
            sample.is_some_and(|sample| !matches!(sample.origin, Origin::Shim | Origin::Cgroup))
        })
    }

    fn rows(&self) -> impl Iterator<Item = &TopRow> {
        self.sandbox.iter().chain(&self.members)
    }

    fn rows_mut(&mut self) -> impl Iterator<Item = &mut TopRow> {
        self.sandbox.iter_mut().chain(&mut self.members)
    }

    pub fn number(&self, field: &Field) -> Option<f64> {
        let members: Vec<_> = self.members.iter().filter_map(TopRow::facts_if_running).collect();
        let sandbox = self.sandbox.as_ref().and_then(TopRow::facts_if_running);
        field.of_all_in_pod(sandbox.as_ref(), &members)
    }

    /// Its line and those of its containers, if they are to be shown.
    fn lines(&self, group: usize, order: &TreeOrder) -> Option<(Line, Vec<Line>)> {
        let matches = |row: &TopRow| row.matches(&order.filter);
        if !self.is_pod {
            let line = Line {
                group,
                kind: Kind::Plain,
            };
            return self.members.iter().any(matches).then(|| (line, Vec::new()));
        }
        // A pod that matches is shown with everything in it.
        let all = order.filter.is_empty() || self.matches(&order.filter);
        let members: Vec<_> = self
            .members
            .iter()
            .enumerate()
            .filter(|(_, row)| all || matches(row))
            .map(|(index, _)| Line {
                group,
                kind: Kind::Member { index, last: false },
            })
            .collect();
        let folded = order.folded.contains(&self.key);
        let kind = Kind::Pod {
            folded,
            members: self.members.len(),
        };
        (all || !members.is_empty())
            .then(|| (Line { group, kind }, if folded { Vec::new() } else { members }))
    }

    fn matches(&self, filter: &str) -> bool {
        match &self.sandbox {
            Some(sandbox) => sandbox.matches(filter),
            None => {
                let filter = filter.to_lowercase();
                [&self.id, &self.title]
                    .into_iter()
                    .any(|text| text.to_lowercase().contains(&filter))
            }
        }
    }
}

/// The order of lines: by number, then by name.
#[derive(PartialEq)]
struct Rank {
    /// `None` comes last in both directions.
    number: Option<f64>,
    name: String,
    by_name: bool,
    reverse: bool,
}

impl Rank {
    fn new(tree: &Tree, line: &Line, order: &TreeOrder) -> Self {
        let field = fields::sorted_by(order.sort);
        let with = field.and_then(|field| field.top?.sort?.with);
        let numbers = [field, with]
            .into_iter()
            .flatten()
            .filter_map(|field| tree.number(line, field));
        Self {
            number: numbers.reduce(|a, b| a + b),
            name: tree.name(line).to_string(),
            by_name: order.sort == BY_NAME,
            reverse: order.reverse,
        }
    }
}

impl Eq for Rank {}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        let turned = |ordering: Ordering| {
            if self.reverse {
                ordering.reverse()
            } else {
                ordering
            }
        };
        let numbers = match (self.number, other.number) {
            (Some(a), Some(b)) => turned(b.total_cmp(&a)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        };
        let names = self.name.cmp(&other.name);
        numbers.then(if self.by_name { turned(names) } else { names })
    }
}

#[cfg(test)]
mod tests;
