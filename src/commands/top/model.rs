//! What the view shows and how: rows, order, selection, mode. Knows neither terminals nor shims.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use shimstat::node::Container;
use shimstat::survey::{AskError, Sample};

use super::host::HostSide;
use super::input::Action;
use super::row::{Figures, Health, Row};
use super::tree::{self, Key, Kind, Line, Order, Sort};

/// The longest filter that can be typed, in characters.
const MAX_FILTER: usize = 64;

/// What keys mean at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Watch,
    /// A filter is being typed.
    Filter,
    Help,
}

/// Something that the loop has to do, as the model cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    Quit,
    Suspend,
    /// Draw everything anew: something else wrote on the screen.
    Redraw,
    /// Ask now rather than at the next tick.
    Ask,
}

/// The state of the view.
pub struct Model {
    pub interval: Duration,
    pub rows: Vec<Row>,
    pub order: Order,
    pub mode: Mode,
    pub paused: bool,
    pub details: bool,
    /// What went wrong with reading the node, where it did.
    pub fault: Option<String>,
    /// The processes around the selected sandbox.
    pub host: Option<HostSide>,
    selected: Option<Key>,
    /// Whether the user chose the selected line: else it is the first, whichever that is.
    chosen: bool,
    /// Where the selected line was: its neighbour takes over when it goes.
    place: usize,
    /// The first line shown.
    pub offset: usize,
    /// How many lines the last drawing had room for.
    pub page: usize,
}

impl Model {
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            rows: Vec::new(),
            order: Order {
                sort: Sort::Cpu,
                reverse: false,
                filter: String::new(),
                folded: HashSet::new(),
            },
            mode: Mode::Watch,
            paused: false,
            details: true,
            fault: None,
            host: None,
            selected: None,
            chosen: false,
            place: 0,
            offset: 0,
            page: 1,
        }
    }

    /// Takes the node's containers as they are now: new ones come, gone ones go, all others keep what is known of
    /// them. One that was made anew under an old id is another.
    pub fn update(&mut self, containers: Vec<Arc<Container>>) {
        let is_shown = |(row, container): (&Row, &Arc<Container>)| Arc::ptr_eq(&row.container, container);
        if self.rows.len() == containers.len() && self.rows.iter().zip(&containers).all(is_shown) {
            // Mostly nothing has come or gone.
            return;
        }
        let mut known: HashMap<Key, Row> = self
            .rows
            .drain(..)
            .map(|row| (row.container.bundle.path.clone(), row))
            .collect();
        self.rows = containers
            .into_iter()
            .map(|container| match known.remove(&container.bundle.path) {
                Some(row) if Arc::ptr_eq(&row.container, &container) => row,
                _ => Row::new(container),
            })
            .collect();
        let here: HashSet<&Key> = self.rows.iter().map(|row| &row.container.bundle.path).collect();
        self.order.folded.retain(|key| here.contains(key));
    }

    /// Takes what a container's shim answered.
    pub fn answer(&mut self, container: &Arc<Container>, answer: Result<Sample, AskError>) {
        let row = self
            .rows
            .iter_mut()
            .find(|row| Arc::ptr_eq(&row.container, container));
        // It may have gone meanwhile.
        if let Some(row) = row {
            row.take(answer);
        }
    }

    /// Notes what the pods used, once the answers of a tick are there.
    pub fn note_pods(&mut self) {
        for line in tree::totals(&self.rows) {
            if let Some(row) = self.rows.get_mut(line.row)
                && row.container.is_sandbox()
            {
                row.cpu.push(line.figures.cpu);
            }
        }
    }

    /// The lines to show, and which of them is selected.
    pub fn lines(&mut self) -> (Vec<Line>, usize) {
        let lines = tree::lines(&self.rows, &self.order);
        let place = lines
            .iter()
            .position(|line| self.key(line) == self.selected.as_ref());
        self.place = match place {
            _ if !self.chosen => 0,
            Some(place) => place,
            None => self.place.min(lines.len().saturating_sub(1)),
        };
        self.selected = lines.get(self.place).and_then(|line| self.key(line)).cloned();
        (lines, self.place)
    }

    /// The row that was selected when the [lines](Self::lines) were last asked for.
    pub fn selected(&self) -> Option<&Row> {
        let key = self.selected.as_ref()?;
        self.rows.iter().find(|row| row.container.bundle.path == *key)
    }

    fn key(&self, line: &Line) -> Option<&Key> {
        Some(&self.rows.get(line.row)?.container.bundle.path)
    }

    /// What all containers use together, how many of them run, and how many keep silent.
    pub fn summary(&self) -> Summary {
        let count = |health: fn(&Health) -> bool| self.rows.iter().filter(|row| health(&row.health)).count();
        let figures: Vec<Figures> = self.rows.iter().map(Row::figures).collect();
        let some = |part: fn(&Figures) -> Option<f64>| figures.iter().filter_map(part).reduce(|a, b| a + b);
        Summary {
            pods: self.rows.iter().filter(|row| row.container.is_sandbox()).count(),
            containers: self.rows.iter().filter(|row| !row.container.is_sandbox()).count(),
            hung: count(|health| matches!(health, Health::Hung(_))),
            cpu: some(|figures| figures.cpu),
            memory: some(|figures| figures.memory.map(|bytes| bytes as f64)).map(|bytes| bytes as u64),
        }
    }

    /// Does what a key means; what is left to the loop comes back.
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
        self.selected = lines.get(self.place).and_then(|line| self.key(line)).cloned();
    }

    /// Folds or unfolds the selected pod, or the one that the selected container is in, which is selected then.
    fn fold(&mut self, fold: Option<bool>) {
        let (lines, place) = self.lines();
        self.chosen = true;
        let upto = lines.get(..=place).unwrap_or_default();
        let pod = upto
            .iter()
            .rev()
            .find(|line| !matches!(line.kind, Kind::Member { .. }));
        let Some(pod) = pod.filter(|pod| matches!(pod.kind, Kind::Pod { .. })) else {
            return;
        };
        let Some(key) = self.key(pod).cloned() else { return };
        let folded = self.order.folded.contains(&key);
        match (fold.unwrap_or(!folded), folded) {
            (true, false) => {
                self.order.folded.insert(key.clone());
                self.selected = Some(key);
            }
            (false, true) => {
                self.order.folded.remove(&key);
            }
            _ => {}
        }
    }

    fn fold_all(&mut self) {
        if !self.order.folded.is_empty() {
            self.order.folded.clear();
            return;
        }
        let pods = self.rows.iter().filter(|row| row.container.is_sandbox());
        self.order.folded = pods.map(|row| row.container.bundle.path.clone()).collect();
        // A container that is no longer shown leaves the selection to its pod.
        if let Some(pod) = self.selected().and_then(|row| self.sandbox_of(row)) {
            self.selected = Some(pod.container.bundle.path.clone());
        }
    }

    /// The row of the sandbox that a container is or runs in.
    pub fn sandbox_of(&self, row: &Row) -> Option<&Row> {
        let bundle = &row.container.bundle;
        let id = row.container.sandbox_id()?;
        self.rows.iter().find(|other| {
            let sandbox = &other.container.bundle;
            other.container.is_sandbox()
                && (sandbox.id.as_str(), &sandbox.namespace, &sandbox.state_dir)
                    == (id, &bundle.namespace, &bundle.state_dir)
        })
    }
}

/// The node in one line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    pub pods: usize,
    pub containers: usize,
    pub hung: usize,
    pub cpu: Option<f64>,
    pub memory: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::top::fixtures::{no_address, pod, row, using};

    fn model() -> Model {
        let mut model = Model::new(Duration::from_secs(2));
        model.rows = vec![
            using(row("a", None), 30.0, 1),
            using(pod("p", "shop", "web"), 0.0, 1),
            using(row("p1", Some("p")), 20.0, 1),
            using(row("p2", Some("p")), 1.0, 1),
            using(row("z", None), 10.0, 1),
        ];
        model
    }

    fn selected(model: &mut Model) -> String {
        model.lines();
        model
            .selected()
            .map(|row| row.container.bundle.id.clone())
            .unwrap_or_default()
    }

    fn shown(model: &mut Model) -> Vec<String> {
        let (lines, _) = model.lines();
        lines
            .iter()
            .map(|line| model.rows[line.row].container.bundle.id.clone())
            .collect()
    }

    #[test]
    fn the_selection_stays_with_its_container() {
        let mut model = model();
        assert_eq!(shown(&mut model), ["a", "p", "p1", "p2", "z"]);
        assert_eq!(selected(&mut model), "a");
        model.act(Action::Sort(Sort::Memory));
        model.rows[4] = using(row("z", None), 10.0, 100);
        assert_eq!(selected(&mut model), "z", "nothing was chosen: the first");
        model.act(Action::Sort(Sort::Cpu));
        model.act(Action::Move(2));
        assert_eq!(selected(&mut model), "p1");
        model.act(Action::Sort(Sort::Name));
        model.act(Action::Reverse);
        assert_eq!(shown(&mut model), ["z", "p", "p2", "p1", "a"]);
        assert_eq!(selected(&mut model), "p1");
        // It goes: its neighbour is selected.
        let left = model.rows.iter().filter(|row| row.container.bundle.id != "p1");
        model.update(left.map(|row| row.container.clone()).collect());
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
        assert!(model.selected().is_none());
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
        model.act(Action::Sort(Sort::Memory));
        assert!(!model.order.reverse);
        model.act(Action::Sort(Sort::Memory));
        assert!(model.order.reverse);
        model.act(Action::Sort(Sort::Cpu));
        assert!(!model.order.reverse, "another column starts with its largest");
    }

    #[test]
    fn what_comes_and_goes_and_what_is_made_anew() {
        let mut model = model();
        let mut containers: Vec<_> = model.rows.iter().map(|row| row.container.clone()).collect();
        containers[0] = row("p1", None).container;
        containers.push(row("new", None).container);
        model.order.folded.insert("/run/x/gone".into());
        model.update(containers.clone());
        assert_eq!(model.rows.len(), 6);
        assert_eq!(
            model.rows[0].health,
            Health::Waiting,
            "the same id, another container"
        );
        assert!(matches!(model.rows[1].health, Health::Answers(_)), "known by now");
        assert!(model.order.folded.is_empty());
        // A late answer about one that has gone is nobody's.
        let gone = row("gone", None).container;
        model.answer(&gone, Err(no_address()));
        model.answer(&containers[5], Err(no_address()));
        assert_eq!(
            model.rows[5].health,
            Health::Failed("its shim's address cannot be told: /run/x/address: the address is empty".into())
        );
    }

    #[test]
    fn the_node_in_one_line() {
        let mut model = model();
        model.rows[4].health = Health::Hung("no answer".into());
        let summary = model.summary();
        assert_eq!((summary.pods, summary.containers, summary.hung), (1, 4, 1));
        assert_eq!(summary.cpu, Some(51.0));
    }

    #[test]
    fn a_pods_past_is_that_of_all_its_containers() {
        let mut model = model();
        model.note_pods();
        assert_eq!(model.rows[1].cpu.last(10).collect::<Vec<_>>(), [Some(21.0)]);
        assert_eq!(
            model.rows[2].cpu.last(10).collect::<Vec<_>>(),
            [None, Some(20.0)],
            "a first sample has no rate"
        );
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
