//! `top`: a live view of everything on the node, in the terminal.
//!
//! At every tick the node is read and all tasks are asked at once; what has answered is drawn when all have, or a
//! quarter of a second later. A task that has not answered is not asked again until it has.

#[cfg(test)]
mod fixtures;
mod host;
mod input;
mod model;
mod row;
mod screen;
mod signals;
mod tree;
mod view;

use std::collections::HashSet;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use go_duration as duration;
use shimstat::node::{Container, Inventory};
use shimstat::survey::{AskError, Network, Sample, Statistics, Survey};
use tokio::runtime::Builder;
use tokio::sync::mpsc;

use self::host::HostSide;
use self::input::Decoder;
use self::model::{Model, Request};
use self::screen::Screen;
use self::signals::{Signal, Signals};
use self::view::Theme;
use super::{CONCURRENCY, Context};
use crate::cli::Top;
use crate::descriptors;
use crate::exit::Failure;
use crate::ticks::Ticks;

/// The shortest interval: shims have other things to do than to answer this.
const SHORTEST: Duration = Duration::from_millis(100);

/// How long the answers of a tick are waited for before those that are there are drawn.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long after the escape character more must come for it to be the beginning of a key: on a slow line the
/// bytes of one key may come apart.
const ESCAPE_TIME: Duration = Duration::from_millis(50);

/// How soon a frame that the terminal had no room for is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// How long answers are left to gather before they are looked at. Hundreds of shims answer one after the other, and to
/// be woken for each costs more than to read it; nobody sees a few milliseconds.
const GATHER: Duration = Duration::from_millis(3);

/// A runtime that lets them; a hundredth of the time for an answer is spent so at the most.
pub fn at_leisure(timeout: Duration) -> Builder {
    let gather = GATHER.min(timeout / 100);
    let mut runtime = Builder::new_current_thread();
    runtime.on_thread_park(move || std::thread::sleep(gather));
    runtime
}

pub async fn run(context: &Context, arguments: &Top) -> Result<(), Failure> {
    if arguments.interval < SHORTEST {
        return Err(Failure::usage(format!(
            "--interval: at least {}, as every look asks every shim",
            duration::show(SHORTEST)
        )));
    }
    check_terminal()?;
    descriptors::allow_many();
    let mut inventory = Inventory::new(context.node.clone());
    let containers = inventory.read()?;
    let mut model = Model::new(arguments.interval);
    model.update(containers);
    let (sender, answers) = mpsc::unbounded_channel();
    let failed = |error: io::Error| Failure::new(format!("the terminal: {error}"));
    let signals = Signals::listen().map_err(failed)?;
    let watch = Watch {
        model,
        inventory,
        survey: Survey::new(context.timeout, CONCURRENCY).keeping_connections(),
        screen: Screen::open().map_err(failed)?,
        theme: Theme::of_environment(),
        in_flight: HashSet::new(),
        sender,
        noted: true,
        draw_at: Some(Instant::now()),
    };
    match watch.run(answers, signals).await {
        // The terminal has been given back by now.
        Ok(None) => Ok(()),
        Ok(Some(signal)) => signal.die(),
        Err(error) => Err(failed(error)),
    }
}

/// There is nobody to watch where the output goes to a file or a pipe.
fn check_terminal() -> Result<(), Failure> {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    if io::stdin().is_terminal() && io::stdout().is_terminal() && !dumb {
        return Ok(());
    }
    let why = if dumb && io::stdout().is_terminal() {
        "top needs a terminal that can move its cursor (TERM says that this one cannot)"
    } else {
        "top needs a terminal for its input and its output"
    };
    Err(Failure::usage(why).and(
        "for pipes and files: kata-runtime events --all --format table (or json), and kata-runtime list",
    ))
}

type Answer = (Arc<Container>, Result<Sample, AskError>);

/// The view at work.
struct Watch {
    model: Model,
    inventory: Inventory,
    survey: Survey,
    screen: Screen,
    theme: Theme,
    /// The bundles of the tasks that have been asked and have not answered.
    in_flight: HashSet<PathBuf>,
    sender: mpsc::UnboundedSender<Answer>,
    /// Whether the pods' sums of this tick have been noted.
    noted: bool,
    draw_at: Option<Instant>,
}

impl Watch {
    /// Runs until the user quits (`None`), a signal ends it, or the terminal fails.
    async fn run(
        mut self,
        mut answers: mpsc::UnboundedReceiver<Answer>,
        mut signals: Signals,
    ) -> io::Result<Option<Signal>> {
        let mut ticks = Ticks::every(self.model.interval);
        let mut keys = Decoder::default();
        loop {
            tokio::select! {
                biased;
                signal = signals.next() => match signal {
                    Signal::Resize => {
                        self.screen.refresh();
                        self.draw_soon(Duration::ZERO);
                    }
                    Signal::Suspend => self.suspend()?,
                    ending => return Ok(Some(ending)),
                },
                bytes = self.screen.next() => {
                    let bytes = bytes?;
                    if bytes.is_empty() {
                        // The terminal is gone, and a signal that would say so is ignored (nohup).
                        return Ok(None);
                    }
                    for key in keys.feed(&bytes) {
                        if self.press(key)? {
                            return Ok(None);
                        }
                    }
                }
                () = tokio::time::sleep(ESCAPE_TIME), if keys.is_waiting() => {
                    if let Some(key) = keys.settle()
                        && self.press(key)?
                    {
                        return Ok(None);
                    }
                }
                Some((container, answer)) = answers.recv() => {
                    self.in_flight.remove(&container.bundle.path);
                    self.model.answer(&container, answer);
                    if self.in_flight.is_empty() {
                        self.draw_soon(Duration::ZERO);
                    }
                }
                () = sleep_until(self.draw_at), if self.draw_at.is_some() => self.draw(),
                () = ticks.tick(), if !self.model.paused => self.tick(),
            }
        }
    }

    /// Does what a key means; whether that is the end.
    fn press(&mut self, key: input::Key) -> io::Result<bool> {
        let Some(action) = input::action(self.model.mode, key) else {
            return Ok(false);
        };
        match self.model.act(action) {
            Some(Request::Quit) => return Ok(true),
            Some(Request::Suspend) => self.suspend()?,
            Some(Request::Redraw) => self.screen.refresh(),
            Some(Request::Ask) => self.tick(),
            None => {}
        }
        self.draw_soon(Duration::ZERO);
        Ok(false)
    }

    fn suspend(&mut self) -> io::Result<()> {
        self.screen.suspend()?;
        self.draw_soon(Duration::ZERO);
        Ok(())
    }

    /// Reads the node, and asks every task that has no question open.
    fn tick(&mut self) {
        self.note();
        match self.inventory.read() {
            Ok(containers) => {
                self.model.fault = None;
                self.model.update(containers);
                self.forget();
            }
            Err(error) => self.model.fault = Some(crate::show::text::escape(&error.to_string()).into_owned()),
        }
        self.noted = false;
        for row in &self.model.rows {
            let container = row.container.clone();
            if !self.in_flight.insert(container.bundle.path.clone()) {
                continue;
            }
            let (survey, sender) = (self.survey.clone(), self.sender.clone());
            tokio::spawn(async move {
                let question = Statistics {
                    network: Network::Interfaces,
                };
                let answer = survey.ask(&container, question).await;
                // Nobody listens any more where the view has ended.
                let _ = sender.send((container, answer));
            });
        }
        self.draw_soon(PATIENCE);
    }

    /// Closes the ways to shims that have gone.
    fn forget(&self) {
        let endpoints = self
            .model
            .rows
            .iter()
            .filter_map(|row| row.container.endpoint.as_ref().ok());
        let here: HashSet<_> = endpoints.map(|endpoint| &endpoint.address).collect();
        self.survey.keep(|address| here.contains(address));
    }

    /// Has a frame drawn after this time, or earlier where that was wanted already.
    fn draw_soon(&mut self, after: Duration) {
        let at = Instant::now() + after;
        self.draw_at = Some(self.draw_at.map_or(at, |before| before.min(at)));
    }

    /// Notes what belongs to a tick once its answers are there.
    fn note(&mut self) {
        if !self.noted {
            self.model.note_pods();
            self.noted = true;
        }
    }

    fn draw(&mut self) {
        let ticked = self.in_flight.is_empty() && !self.noted;
        if ticked {
            self.note();
        }
        self.look_at_host(ticked);
        let (model, theme) = (&mut self.model, &self.theme);
        let drawn = self.screen.draw(|buffer| view::draw(model, theme, buffer));
        self.draw_at = (!drawn).then(|| Instant::now() + RETRY);
    }

    /// Reads the processes around the selected container: at every tick, and when another is selected.
    fn look_at_host(&mut self, ticked: bool) {
        if !self.model.details {
            self.model.host = None;
            return;
        }
        self.model.lines();
        let host = self.model.selected().and_then(|selected| {
            let before = self.model.host.as_ref();
            let same = before.is_some_and(|before| before.selected == selected.container.bundle.path);
            let sandbox = self.model.sandbox_of(selected);
            (ticked || !same).then(|| HostSide::read(selected, sandbox, before))
        });
        if host.is_some() || self.model.selected().is_none() {
            self.model.host = host;
        }
    }
}

/// Waits until then; for ever where there is no then.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
