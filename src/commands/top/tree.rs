//! The lines of the view: which rows are there, in which order, pods with their containers under them.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::row::{Figures, Health, Row};

/// Names a row for as long as its bundle is there.
pub type Key = PathBuf;

/// What the lines are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    Cpu,
    Memory,
    Network,
    Block,
    Pids,
    Name,
}

/// How the lines are chosen and sorted.
#[derive(Debug, Clone)]
pub struct Order {
    pub sort: Sort,
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
    /// A container of the pod above; whether it is its last.
    Member { last: bool },
    /// A container that is in no pod.
    Plain,
}

/// A line of the view.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Which row it is about; of a pod, its sandbox's.
    pub row: usize,
    pub kind: Kind,
    /// Of a pod: of all its members that run, the sandbox itself too.
    pub figures: Figures,
}

struct Group {
    line: Line,
    members: Vec<Line>,
}

/// The pods and plain containers, each with what it uses; of a pod without its members.
pub fn totals(rows: &[Row]) -> Vec<Line> {
    groups(rows).into_iter().map(|group| group.line).collect()
}

/// The lines to show, in their order.
pub fn lines(rows: &[Row], order: &Order) -> Vec<Line> {
    let mut groups = groups(rows);
    let row_of = |line: &Line| rows.get(line.row);
    let fits = |line: &Line| row_of(line).is_some_and(|row| row.fits(&order.filter));
    if !order.filter.is_empty() {
        groups.retain_mut(|group| {
            if fits(&group.line) {
                return true;
            }
            group.members.retain(fits);
            !group.members.is_empty()
        });
    }
    groups.sort_by_cached_key(|group| Rank::new(&group.line, rows, order));
    let mut lines = Vec::with_capacity(rows.len());
    for mut group in groups {
        let folded = row_of(&group.line).is_some_and(|row| order.folded.contains(&row.container.bundle.path));
        if let Kind::Pod { folded: shown, .. } = &mut group.line.kind {
            *shown = folded;
        }
        lines.push(group.line);
        if folded {
            continue;
        }
        group
            .members
            .sort_by_cached_key(|member| Rank::new(member, rows, order));
        let last = group.members.len().saturating_sub(1);
        for (place, mut member) in group.members.into_iter().enumerate() {
            member.kind = Kind::Member { last: place == last };
            lines.push(member);
        }
    }
    lines
}

/// What tells a sandbox from others: ids are unique in a namespace of one containerd.
type SandboxId<'a> = (&'a Path, &'a str, &'a str);

fn sandbox_of(row: &Row) -> Option<SandboxId<'_>> {
    let bundle = &row.container.bundle;
    Some((&bundle.state_dir, &bundle.namespace, row.container.sandbox_id()?))
}

/// Puts containers under their sandboxes, in the order of the rows. One whose sandbox is not there stands alone.
fn groups(rows: &[Row]) -> Vec<Group> {
    let is_sandbox = |row: &Row| row.container.is_sandbox();
    let known: HashSet<SandboxId> = rows
        .iter()
        .filter(|row| is_sandbox(row))
        .filter_map(sandbox_of)
        .collect();
    let in_pod = |row: &Row| !is_sandbox(row) && sandbox_of(row).is_some_and(|id| known.contains(&id));
    let line = |index, row: &Row, kind| Line {
        row: index,
        kind,
        figures: row.figures(),
    };
    let mut groups: Vec<Group> = Vec::with_capacity(rows.len());
    let mut places: HashMap<SandboxId, usize> = HashMap::with_capacity(known.len());
    for (index, row) in rows.iter().enumerate().filter(|(_, row)| !in_pod(row)) {
        let kind = if is_sandbox(row) {
            places.extend(sandbox_of(row).map(|id| (id, groups.len())));
            Kind::Pod {
                folded: false,
                members: 0,
            }
        } else {
            Kind::Plain
        };
        groups.push(Group {
            line: line(index, row, kind),
            members: Vec::new(),
        });
    }
    for (index, row) in rows.iter().enumerate().filter(|(_, row)| in_pod(row)) {
        let place = sandbox_of(row).and_then(|id| places.get(&id));
        if let Some(group) = place.and_then(|place| groups.get_mut(*place)) {
            group.members.push(line(index, row, Kind::Member { last: false }));
        }
    }
    for group in &mut groups {
        if let Kind::Pod { members, .. } = &mut group.line.kind {
            *members = group.members.len();
            group.line.figures = pod_figures(rows, &group.line, &group.members);
        }
    }
    groups
}

/// What a pod uses: its sandbox's own container and the others, as far as they run.
fn pod_figures(rows: &[Row], sandbox: &Line, members: &[Line]) -> Figures {
    let runs = |line: &&Line| {
        rows.get(line.row)
            .is_some_and(|row| !matches!(row.health, Health::Stopped(_)))
    };
    let running: Vec<Figures> = members.iter().filter(runs).map(|line| line.figures).collect();
    // The sandbox's own container needs no limit: it does nothing.
    let limit = running.iter().map(|figures| figures.limit).sum::<Option<u64>>();
    let all: Vec<Figures> = Some(sandbox)
        .filter(runs)
        .map(|line| line.figures)
        .into_iter()
        .chain(running)
        .collect();
    let own = sandbox.figures.limit;
    Figures {
        limit: if members.is_empty() {
            own
        } else {
            limit.filter(|limit| *limit > 0)
        },
        ..Figures::sum(&all)
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
    fn new(line: &Line, rows: &[Row], order: &Order) -> Self {
        let figures = &line.figures;
        let both = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (None, None) => None,
            _ => Some(a.unwrap_or(0.0) + b.unwrap_or(0.0)),
        };
        let number = match order.sort {
            Sort::Cpu => figures.cpu,
            Sort::Memory => figures.memory.map(|bytes| bytes as f64),
            Sort::Network => both(figures.rx, figures.tx),
            Sort::Block => both(figures.read, figures.write),
            Sort::Pids => figures.pids.map(|pids| pids as f64),
            Sort::Name => None,
        };
        let name = rows.get(line.row).map(|row| match line.kind {
            Kind::Member { .. } => row.container_name(),
            Kind::Pod { .. } | Kind::Plain => row.title(),
        });
        Self {
            number,
            name: name.unwrap_or_default(),
            by_name: order.sort == Sort::Name,
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
mod tests {
    use super::*;
    use crate::commands::top::fixtures::{no_address, pod, row, using};

    fn order(sort: Sort) -> Order {
        Order {
            sort,
            reverse: false,
            filter: String::new(),
            folded: HashSet::new(),
        }
    }

    /// The ids of the lines, members with a dash before them.
    fn shown(rows: &[Row], order: &Order) -> Vec<String> {
        lines(rows, order)
            .iter()
            .map(|line| {
                let id = &rows[line.row].container.bundle.id;
                match line.kind {
                    Kind::Member { last: true } => format!("`-{id}"),
                    Kind::Member { last: false } => format!("|-{id}"),
                    Kind::Pod {
                        folded: true,
                        members,
                    } => format!("+{id}({members})"),
                    Kind::Pod { folded: false, .. } | Kind::Plain => id.clone(),
                }
            })
            .collect()
    }

    /// Two pods and two plain containers.
    fn node() -> Vec<Row> {
        vec![
            using(row("alone", None), 20.0, 100 << 20),
            using(row("idle", None), 0.0, 1 << 20),
            using(pod("pod1", "shop", "web"), 0.0, 1 << 20),
            using(row("app1", Some("pod1")), 5.0, 30 << 20),
            using(row("side1", Some("pod1")), 40.0, 10 << 20),
            using(pod("pod2", "shop", "db"), 1.0, 1 << 20),
            using(row("app2", Some("pod2")), 2.0, 500 << 20),
        ]
    }

    #[test]
    fn pods_stand_with_their_containers_by_what_they_use_together() {
        let rows = node();
        assert_eq!(
            shown(&rows, &order(Sort::Cpu)),
            ["pod1", "|-side1", "`-app1", "alone", "pod2", "`-app2", "idle"]
        );
        assert_eq!(
            shown(&rows, &order(Sort::Memory)),
            ["pod2", "`-app2", "alone", "pod1", "|-app1", "`-side1", "idle"]
        );
        assert_eq!(
            shown(&rows, &order(Sort::Name)),
            ["alone", "idle", "pod2", "`-app2", "pod1", "|-app1", "`-side1"],
            "pods by their names: shop/db, shop/web"
        );
        let reversed = Order {
            reverse: true,
            ..order(Sort::Cpu)
        };
        assert_eq!(
            shown(&rows, &reversed),
            ["idle", "pod2", "`-app2", "alone", "pod1", "|-app1", "`-side1"]
        );
    }

    #[test]
    fn what_nobody_measured_is_last_whichever_way() {
        let mut rows = node();
        rows[0].take(Err(no_address()));
        for reverse in [false, true] {
            let order = Order {
                reverse,
                ..order(Sort::Cpu)
            };
            assert_eq!(shown(&rows, &order).last().unwrap(), "alone");
        }
    }

    #[test]
    fn a_pod_uses_what_its_members_use_where_all_of_them_answer() {
        let mut rows = node();
        let pod1 = |rows: &[Row]| {
            totals(rows)
                .into_iter()
                .find(|line| line.row == 2)
                .unwrap()
                .figures
        };
        assert_eq!(pod1(&rows).cpu, Some(45.0));
        assert_eq!(pod1(&rows).memory, Some(41 << 20));
        assert_eq!(pod1(&rows).limit, None, "the members have no limits");
        rows[3].take(Err(no_address()));
        assert_eq!(pod1(&rows).cpu, None);
        rows[3].health = Health::Stopped("exited".into());
        assert_eq!(pod1(&rows).cpu, Some(40.0), "what has stopped uses nothing");
    }

    #[test]
    fn a_pods_limit_is_that_of_its_containers() {
        let mut rows = node();
        for index in [3, 4] {
            let sample = rows[index].sample.as_mut().unwrap();
            sample.stats.memory.usage.limit = Some(64 << 20);
        }
        let pod1 = totals(&rows).into_iter().find(|line| line.row == 2).unwrap();
        assert_eq!(pod1.figures.limit, Some(128 << 20));
    }

    #[test]
    fn folding_and_filtering() {
        let rows = node();
        let mut folded = order(Sort::Cpu);
        folded.folded.insert(rows[2].container.bundle.path.clone());
        assert_eq!(
            shown(&rows, &folded),
            ["+pod1(2)", "alone", "pod2", "`-app2", "idle"]
        );
        let filtered = |text: &str| {
            let filter = text.to_string();
            shown(
                &rows,
                &Order {
                    filter,
                    ..order(Sort::Cpu)
                },
            )
        };
        assert_eq!(
            filtered("SHOP/we"),
            ["pod1", "|-side1", "`-app1"],
            "a pod with all that is in it"
        );
        assert_eq!(
            filtered("app"),
            ["pod1", "`-app1", "pod2", "`-app2"],
            "containers with their pods"
        );
        assert_eq!(filtered("nothing"), [""; 0]);
    }

    #[test]
    fn a_container_whose_sandbox_is_not_there_stands_alone() {
        let rows = vec![using(row("orphan", Some("gone")), 1.0, 1)];
        assert_eq!(shown(&rows, &order(Sort::Cpu)), ["orphan"]);
    }
}
