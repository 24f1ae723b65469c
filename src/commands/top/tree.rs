//! The lines of the view: pods with their containers under them, and the containers that are in none.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use shimstat::node::{Container, Pod, pods};
use shimstat::survey::{AskError, Sample};

use super::row::{History, Row};
use crate::show::field::Field;
use crate::show::fields;
use crate::show::name::{Labels, short_id};

/// Names a line for as long as its bundle is there: the bundle's path. A pod's is that of its sandbox.
pub type Key = PathBuf;

/// The key that sorts by name; the others are those of the [fields](fields::sorted_by).
pub const BY_NAME: char = 'a';

/// How the lines are chosen and sorted.
#[derive(Debug, Clone)]
pub struct Order {
    /// The key that was pressed for it.
    pub sort: char,
    /// The other way round than usual: the smallest number first, the last name first.
    pub reverse: bool,
    /// Shows only what fits this text; empty fits everything.
    pub filter: String,
    /// Pods whose containers are not shown.
    pub folded: HashSet<Key>,
}

/// What a line stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A pod, with so many containers in it.
    Pod { folded: bool, members: usize },
    /// A container of the pod above: which, and whether it is the last that is shown.
    Member { index: usize, last: bool },
    /// A container that is in no pod.
    Plain,
}

/// A line of the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Which group it is of.
    group: usize,
    pub kind: Kind,
}

/// A pod, or a container that is in none.
#[derive(Debug)]
pub struct Group {
    pub key: Key,
    /// The sandbox's id.
    pub id: String,
    /// What people know it by. Untrusted text.
    pub title: String,
    /// `None` also where the sandbox has no bundle.
    pub sandbox: Option<Row>,
    /// The containers beside the sandbox's own; of one that is in no pod, itself.
    pub members: Vec<Row>,
    is_pod: bool,
    /// Per cent of one processor, all together.
    pub cpu: History,
}

/// Everything on the node, by pod.
#[derive(Debug, Default)]
pub struct Tree {
    groups: Vec<Group>,
    /// What they were made of.
    containers: Vec<Arc<Container>>,
}

impl Tree {
    /// Takes the node's containers as they are now: new ones come, gone ones go, all others keep what is known of
    /// them. One that was made anew under an old id is another.
    pub fn update(&mut self, containers: Vec<Arc<Container>>) {
        let same = |(old, new): (&Arc<Container>, &Arc<Container>)| Arc::ptr_eq(old, new);
        if self.containers.len() == containers.len() && self.containers.iter().zip(&containers).all(same) {
            // Mostly nothing has come or gone.
            return;
        }
        let mut histories = HashMap::with_capacity(self.groups.len());
        let mut known: HashMap<Key, Row> = HashMap::with_capacity(containers.len());
        for group in self.groups.drain(..) {
            histories.insert(group.key, group.cpu);
            let rows = group.sandbox.into_iter().chain(group.members);
            known.extend(rows.map(|row| (row.container.bundle.path.clone(), row)));
        }
        let mut row = |container: Arc<Container>| match known.remove(&container.bundle.path) {
            Some(row) if Arc::ptr_eq(&row.container, &container) => row,
            _ => Row::new(container),
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

    /// Takes what a container's shim answered. It may have gone meanwhile.
    pub fn answer(&mut self, container: &Arc<Container>, answer: Result<Sample, AskError>) {
        let row = self.rows_mut().find(|row| Arc::ptr_eq(&row.container, container));
        if let Some(row) = row {
            row.take(answer);
        }
    }

    /// Notes what the pods used, once the answers of a tick are there.
    pub fn note_pods(&mut self) {
        for group in &mut self.groups {
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

    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.groups.iter().flat_map(Group::rows)
    }

    pub fn rows_mut(&mut self) -> impl Iterator<Item = &mut Row> {
        self.groups.iter_mut().flat_map(Group::rows_mut)
    }

    /// The lines to show, in their order.
    pub fn lines(&self, order: &Order) -> Vec<Line> {
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

    /// The container that a line is about: a pod's own is its sandbox's, where that has a bundle.
    pub fn row(&self, line: &Line) -> Option<&Row> {
        let group = self.group(line)?;
        match line.kind {
            Kind::Pod { .. } => group.sandbox.as_ref(),
            Kind::Member { index, .. } => group.members.get(index),
            Kind::Plain => group.members.first(),
        }
    }

    pub fn key(&self, line: &Line) -> Option<&Key> {
        match line.kind {
            Kind::Pod { .. } => Some(&self.group(line)?.key),
            Kind::Member { .. } | Kind::Plain => Some(&self.row(line)?.container.bundle.path),
        }
    }

    /// What people know it by. Untrusted text.
    pub fn name(&self, line: &Line) -> &str {
        let name = match line.kind {
            Kind::Pod { .. } | Kind::Plain => self.group(line).map(|group| group.title.as_str()),
            Kind::Member { .. } => self.row(line).map(Row::name_in_pod),
        };
        name.unwrap_or_default()
    }

    /// A number of a line; a pod's is that of all that is in it.
    pub fn number(&self, line: &Line, field: &Field) -> Option<f64> {
        match line.kind {
            Kind::Pod { .. } => self.group(line)?.number(field),
            Kind::Member { .. } | Kind::Plain => field.of(&self.row(line)?.facts()),
        }
    }

    /// The processor's past.
    pub fn cpu(&self, line: &Line) -> Option<&History> {
        match line.kind {
            Kind::Pod { .. } => Some(&self.group(line)?.cpu),
            Kind::Member { .. } | Kind::Plain => Some(&self.row(line)?.cpu),
        }
    }
}

/// `namespace/pod`, or the short id.
fn title(pod: &Pod) -> String {
    let name = pod.names().pod().filter(|_| !pod.is_plain());
    name.unwrap_or_else(|| short_id(&pod.id).to_string())
}

impl Group {
    /// The container whose processes on the host are the pod's: its sandbox's, or another where that has no bundle.
    pub fn main(&self) -> Option<&Row> {
        self.rows().next()
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.sandbox.iter().chain(&self.members)
    }

    fn rows_mut(&mut self) -> impl Iterator<Item = &mut Row> {
        self.sandbox.iter_mut().chain(&mut self.members)
    }

    fn number(&self, field: &Field) -> Option<f64> {
        let members: Vec<_> = self.members.iter().filter_map(Row::facts_if_running).collect();
        let sandbox = self.sandbox.as_ref().and_then(Row::facts_if_running);
        field.of_all_in_pod(sandbox.as_ref(), &members)
    }

    /// Its line and those of its containers, as far as they are to be shown.
    fn lines(&self, group: usize, order: &Order) -> Option<(Line, Vec<Line>)> {
        let fits = |row: &Row| row.fits(&order.filter);
        if !self.is_pod {
            let line = Line {
                group,
                kind: Kind::Plain,
            };
            return self.members.iter().any(fits).then(|| (line, Vec::new()));
        }
        // A pod that fits is shown with all that is in it.
        let all = order.filter.is_empty() || self.fits(&order.filter);
        let members: Vec<_> = self
            .members
            .iter()
            .enumerate()
            .filter(|(_, row)| all || fits(row))
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

    fn fits(&self, filter: &str) -> bool {
        match &self.sandbox {
            Some(sandbox) => sandbox.fits(filter),
            None => {
                let filter = filter.to_lowercase();
                [&self.id, &self.title]
                    .into_iter()
                    .any(|text| text.to_lowercase().contains(&filter))
            }
        }
    }
}

/// Where a line stands among others: by its number, then by its name.
#[derive(PartialEq)]
struct Rank {
    /// `None` comes last, whichever way is sorted.
    number: Option<f64>,
    name: String,
    by_name: bool,
    reverse: bool,
}

impl Rank {
    fn new(tree: &Tree, line: &Line, order: &Order) -> Self {
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
