//! The state of the view: lines, order, selection, mode. It knows neither terminals nor shims.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use shimstat::node::Container;
use shimstat::survey::Hidden;

use super::host::HostSide;
use super::input::{Action, Mode};
use super::row::Health;
use super::tree::{Kind, Line, RowKey, Tree, TreeOrder};
use crate::guest_side::GuestSide;
use crate::show::field::Field;
use crate::show::fields;

/// The length limit for a filter, in characters.
const MAX_FILTER: usize = 64;

/// Something that the main loop has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    Quit,
    Suspend,
    /// Redraw everything: something else wrote to the screen.
    Redraw,
    /// Ask now, not at the next tick.
    Ask,
}

/// The state of the view.
pub struct Model {
    pub interval: Duration,
    pub tree: Tree,
    pub order: TreeOrder,
    pub mode: Mode,
    pub paused: bool,
    pub details: bool,
    /// Why the node could not be read.
    pub fault: Option<String>,
    /// Why the network of containers is not shown.
    pub hidden: Option<Hidden>,
    /// The processes around the selected sandbox.
    pub host: Option<HostSide>,
    /// What the selected sandbox's guest tells.
    pub guest: Option<Arc<GuestSide>>,
    /// Whether any guest has told something: the pane has room for it then.
    pub guests_tell: bool,
    selected: Option<RowKey>,
    /// Whether the user chose the selected line; otherwise the first line is selected.
    chosen: bool,
    /// The place of the selected line: the line there is selected next if it disappears.
    place: usize,
    /// The first line shown.
    pub offset: usize,
    /// How many lines there was room for in the last frame.
    pub page: usize,
}

impl Model {
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            tree: Tree::default(),
            order: TreeOrder {
                sort: 'c',
                reverse: false,
                filter: String::new(),
                folded: HashSet::new(),
            },
            mode: Mode::Watch,
            paused: false,
            details: true,
            fault: None,
            hidden: None,
            host: None,
            guest: None,
            guests_tell: false,
            selected: None,
            chosen: false,
            place: 0,
            offset: 0,
            page: 1,
        }
    }

    /// Takes the containers that are on the node now.
    pub fn update(&mut self, containers: Vec<Arc<Container>>) {
        self.tree.update(containers);
        let here: HashSet<&RowKey> = self.tree.pods().map(|pod| &pod.key).collect();
        self.order.folded.retain(|key| here.contains(key));
    }

    /// The lines to show, and which of them is selected.
    pub fn lines(&mut self) -> (Vec<Line>, usize) {
        let lines = self.tree.lines(&self.order);
        let place = lines
            .iter()
            .position(|line| self.tree.key(line) == self.selected.as_ref());
        self.place = match place {
            _ if !self.chosen => 0,
            Some(place) => place,
            None => self.place.min(lines.len().saturating_sub(1)),
        };
        self.selected = lines
            .get(self.place)
            .and_then(|line| self.tree.key(line))
            .cloned();
        (lines, self.place)
    }

    /// How many containers there are, how many do not answer, and what they use together.
    pub fn summary(&self) -> Totals {
        let pods = self.tree.pods().count();
        let rows = || self.tree.rows();
        let sum = |field: &Field| {
            rows()
                .filter_map(|row| field.of(&row.facts()))
                .reduce(|a, b| a + b)
        };
        Totals {
            pods,
            containers: rows().filter(|row| !row.container.is_sandbox()).count(),
            hung: rows().filter(|row| matches!(row.health, Health::Hung(_))).count(),
            cpu: sum(&fields::CPU),
            memory: sum(&fields::MEMORY).map(|bytes| bytes as u64),
        }
    }

    /// Does what a key means, and returns what the main loop has to do.
    pub fn act(&mut self, action: Action) -> Option<Request> {
        match action {
            Action::Quit => return Some(Request::Quit),
            Action::Suspend => return Some(Request::Suspend),
            Action::Redraw => return Some(Request::Redraw),
            Action::Move(lines) => self.go(|place, _| place.saturating_add_signed(lines)),
            Action::Page(pages) => {
                let step = isize::try_from(self.page.saturating_sub(1).max(1)).unwrap_or(1) * pages;
                self.go(|place, _| place.saturating_add_signed(step));
            }
            Action::First => self.go(|_, _| 0),
            Action::Last => self.go(|_, last| last),
            Action::Fold => self.fold(None),
            Action::Collapse => self.fold(Some(true)),
            Action::Expand => self.fold(Some(false)),
            Action::FoldAll => self.fold_all(),
            Action::Sort(sort) if self.order.sort == sort => self.order.reverse = !self.order.reverse,
            Action::Sort(sort) => {
                self.order.sort = sort;
                self.order.reverse = false;
            }
            Action::Reverse => self.order.reverse = !self.order.reverse,
            Action::Pause => {
                self.paused = !self.paused;
                return (!self.paused).then_some(Request::Ask);
            }
            Action::Details => self.details = !self.details,
            Action::Help => self.mode = Mode::Help,
            Action::Filter => self.mode = Mode::Filter,
            Action::Type(character) if self.order.filter.chars().count() < MAX_FILTER => {
                self.order.filter.push(character);
            }
            Action::Type(_) => {}
            Action::Erase => {
                self.order.filter.pop();
            }
            Action::Leave => self.mode = Mode::Watch,
            Action::Clear => {
                self.order.filter.clear();
                self.mode = Mode::Watch;
            }
        }
        None
    }

    fn go(&mut self, to: impl FnOnce(usize, usize) -> usize) {
        let (lines, place) = self.lines();
        self.chosen = true;
        let last = lines.len().saturating_sub(1);
        self.place = to(place, last).min(last);
        self.selected = lines
            .get(self.place)
            .and_then(|line| self.tree.key(line))
            .cloned();
    }

    /// Folds or unfolds the selected pod, or the pod of the selected container, and selects it.
    fn fold(&mut self, fold: Option<bool>) {
        let pod = self.selected_pod();
        self.chosen = true;
        let Some(pod) = pod else { return };
        let folded = self.order.folded.contains(&pod);
        match (fold.unwrap_or(!folded), folded) {
            (true, false) => {
                self.order.folded.insert(pod.clone());
                self.selected = Some(pod);
            }
            (false, true) => {
                self.order.folded.remove(&pod);
            }
            _ => {}
        }
    }

    fn fold_all(&mut self) {
        if !self.order.folded.is_empty() {
            self.order.folded.clear();
            return;
        }
        // If the selected container is hidden by that, its pod is selected.
        if let Some(pod) = self.selected_pod() {
            self.selected = Some(pod);
        }
        self.order.folded = self.tree.pods().map(|pod| pod.key.clone()).collect();
    }

    /// The pod that is selected, or that the selected container is in.
    fn selected_pod(&mut self) -> Option<RowKey> {
        let (lines, place) = self.lines();
        let line = lines.get(place).filter(|line| line.kind != Kind::Plain)?;
        Some(self.tree.group(line)?.key.clone())
    }
}

/// The node's summary line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Totals {
    pub pods: usize,
    pub containers: usize,
    pub hung: usize,
    pub cpu: Option<f64>,
    pub memory: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::top::fixtures::{pod, row, row_of, tree, using};
    use crate::commands::top::tree::BY_NAME;

    fn model() -> Model {
        let mut model = Model::new(Duration::from_secs(2));
        model.tree = tree(vec![
            using(row("a", None), 30.0, 1),
            using(pod("p", "shop", "web"), 0.0, 1),
            using(row("p1", Some("p")), 20.0, 1),
            using(row("p2", Some("p")), 1.0, 1),
            using(row("z", None), 10.0, 1),
        ]);
        model
    }

    fn selected(model: &mut Model) -> String {
        let (_, place) = model.lines();
        shown(model).get(place).cloned().unwrap_or_default()
    }

    fn shown(model: &mut Model) -> Vec<String> {
        let (lines, _) = model.lines();
        let key = |line| model.tree.key(line).unwrap().file_name().unwrap();
        lines
            .iter()
            .map(|line| key(line).to_str().unwrap().to_string())
            .collect()
    }

    #[test]
    fn the_selection_stays_with_its_container() {
        let mut model = model();
        assert_eq!(shown(&mut model), ["a", "p", "p1", "p2", "z"]);
        assert_eq!(selected(&mut model), "a");
        model.act(Action::Sort('m'));
        let z = row_of(&mut model.tree, "z");
        z.sample.as_mut().unwrap().stats.memory.usage.usage = Some(100);
        assert_eq!(selected(&mut model), "z", "nothing was chosen: the first");
        model.act(Action::Sort('c'));
        model.act(Action::Move(2));
        assert_eq!(selected(&mut model), "p1");
        model.act(Action::Sort(BY_NAME));
        model.act(Action::Reverse);
        assert_eq!(shown(&mut model), ["z", "p", "p2", "p1", "a"]);
        assert_eq!(selected(&mut model), "p1");
        // It goes: its neighbour is selected.
        let left = model
            .tree
            .containers()
            .iter()
            .filter(|one| one.id() != "p1")
            .cloned();
        model.update(left.collect());
        assert_eq!(shown(&mut model), ["z", "p", "p2", "a"]);
        assert_eq!(selected(&mut model), "a");
        model.act(Action::Move(-100));
        assert_eq!(selected(&mut model), "z");
        model.act(Action::Last);
        assert_eq!(selected(&mut model), "a");
    }

    #[test]
    fn an_empty_node_has_nothing_to_select() {
        let mut model = Model::new(Duration::from_secs(2));
        for action in [
            Action::Move(1),
            Action::Last,
            Action::Fold,
            Action::FoldAll,
            Action::Page(1),
        ] {
            assert_eq!(model.act(action), None);
        }
        assert_eq!(model.lines(), (vec![], 0));
        assert!(model.selected.is_none());
    }

    #[test]
    fn folding_from_within_a_pod_selects_the_pod() {
        let mut model = model();
        model.act(Action::Move(3));
        assert_eq!(selected(&mut model), "p2");
        model.act(Action::Collapse);
        assert_eq!(shown(&mut model), ["a", "p", "z"]);
        assert_eq!(selected(&mut model), "p");
        model.act(Action::Collapse);
        assert_eq!(shown(&mut model), ["a", "p", "z"], "folded already");
        model.act(Action::Fold);
        assert_eq!(shown(&mut model), ["a", "p", "p1", "p2", "z"]);
        model.act(Action::Move(1));
        model.act(Action::FoldAll);
        assert_eq!(
            (shown(&mut model), selected(&mut model).as_str()),
            (vec!["a".into(), "p".into(), "z".into()], "p")
        );
        model.act(Action::FoldAll);
        assert_eq!(shown(&mut model).len(), 5);
        // A plain container has nothing to fold.
        model.act(Action::First);
        model.act(Action::Fold);
        assert_eq!(shown(&mut model).len(), 5);
    }

    #[test]
    fn a_filter_is_typed_and_cleared() {
        let mut model = model();
        model.act(Action::Filter);
        assert_eq!(model.mode, Mode::Filter);
        for character in "webx".chars() {
            model.act(Action::Type(character));
        }
        model.act(Action::Erase);
        assert_eq!(shown(&mut model), ["p", "p1", "p2"]);
        model.act(Action::Leave);
        assert_eq!((model.mode, shown(&mut model).len()), (Mode::Watch, 3));
        model.act(Action::Clear);
        assert_eq!(shown(&mut model).len(), 5);
        for _ in 0..1000 {
            model.act(Action::Type('x'));
        }
        assert_eq!(model.order.filter.len(), MAX_FILTER);
    }

    #[test]
    fn the_same_key_again_turns_the_order_round() {
        let mut model = model();
        model.act(Action::Sort('m'));
        assert!(!model.order.reverse);
        model.act(Action::Sort('m'));
        assert!(model.order.reverse);
        model.act(Action::Sort('c'));
        assert!(!model.order.reverse, "another column starts with its largest");
    }

    #[test]
    fn a_pod_that_comes_back_is_not_folded() {
        let mut model = model();
        model.act(Action::FoldAll);
        assert_eq!(shown(&mut model), ["a", "p", "z"]);
        let all = model.tree.containers().to_vec();
        model.update(all[..1].to_vec());
        model.update(all);
        assert_eq!(shown(&mut model).len(), 5);
    }

    #[test]
    fn the_node_in_one_line() {
        let mut model = model();
        row_of(&mut model.tree, "z").health = Health::Hung("no answer".into());
        let summary = model.summary();
        assert_eq!((summary.pods, summary.containers, summary.hung), (1, 4, 1));
        assert_eq!(summary.cpu, Some(51.0));
    }

    #[test]
    fn pausing_asks_again_when_it_ends() {
        let mut model = model();
        assert_eq!((model.act(Action::Pause), model.paused), (None, true));
        assert_eq!(
            (model.act(Action::Pause), model.paused),
            (Some(Request::Ask), false)
        );
    }
}
