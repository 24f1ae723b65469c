//! `top`: a live view of everything on the node, in the terminal.
//!
//! At every tick the node is read and all tasks are asked at once; what has answered is drawn when all have, or a
//! quarter of a second later. A task that has not answered is not asked again until it has.

mod asking;
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

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use shimstat::node::Inventory;
use shimstat::survey::Survey;

use self::asking::Asking;
use self::host::HostSide;
use self::input::Decoder;
use self::model::{Model, Request};
use self::screen::Screen;
use self::signals::{Signal, Signals};
use self::view::Theme;
use crate::cli::Top;
use crate::context::{CONCURRENCY, Context};
use crate::descriptors;
use crate::exit::Failure;
use crate::ticks::Ticks;

/// How long the answers of a tick are waited for before those that are there are drawn.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long after the escape character more must come for it to be the beginning of a key: on a slow line the
/// bytes of one key may come apart.
const ESCAPE_TIME: Duration = Duration::from_millis(50);

/// How soon a frame that the terminal had no room for is tried again.
const RETRY: Duration = Duration::from_millis(100);

pub async fn run(context: &Context, arguments: &Top) -> Result<(), Failure> {
    check_terminal()?;
    descriptors::allow_many();
    let mut inventory = Inventory::new(context.node.clone());
    let containers = inventory.read()?;
    let mut model = Model::new(arguments.interval);
    model.update(containers);
    let failed = |error: io::Error| Failure::new(format!("the terminal: {error}"));
    let signals = Signals::listen().map_err(failed)?;
    let watch = Watch {
        model,
        inventory,
        asking: Asking::new(Survey::new(context.timeout, CONCURRENCY).keeping_connections()),
        screen: Screen::open().map_err(failed)?,
        theme: Theme::of_environment(),
        noted: true,
        draw_at: Some(Instant::now()),
    };
    match watch.run(signals).await {
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

/// The view at work.
struct Watch {
    model: Model,
    inventory: Inventory,
    asking: Asking,
    screen: Screen,
    theme: Theme,
    /// Whether the pods' sums of this tick have been noted.
    noted: bool,
    draw_at: Option<Instant>,
}

impl Watch {
    /// Runs until the user quits (`None`), a signal ends it, or the terminal fails.
    async fn run(mut self, mut signals: Signals) -> io::Result<Option<Signal>> {
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
                () = self.asking.complete() => self.draw_soon(Duration::ZERO),
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

    /// Reads the node, and asks every container whose last question has been answered.
    fn tick(&mut self) {
        self.take_answers();
        self.note();
        match self.inventory.read() {
            Ok(containers) => {
                self.model.fault = None;
                self.model.update(containers);
                self.asking.keep(self.model.tree.containers());
            }
            Err(error) => self.model.fault = Some(error.to_string()),
        }
        self.noted = false;
        self.asking.ask(self.model.tree.containers());
        self.draw_soon(PATIENCE);
    }

    fn take_answers(&mut self) {
        while let Some((container, answer)) = self.asking.take() {
            self.model.tree.answer(&container, answer);
        }
    }

    /// Has a frame drawn after this time, or earlier where that was wanted already.
    fn draw_soon(&mut self, after: Duration) {
        let at = Instant::now() + after;
        self.draw_at = Some(self.draw_at.map_or(at, |before| before.min(at)));
    }

    /// Notes what belongs to a tick once its answers are there.
    fn note(&mut self) {
        if !self.noted {
            self.model.tree.note_pods();
            self.noted = true;
        }
    }

    fn draw(&mut self) {
        self.take_answers();
        let ticked = self.asking.is_over() && !self.noted;
        if ticked {
            self.note();
        }
        self.look_at_host(ticked);
        let (model, theme) = (&mut self.model, &self.theme);
        let drawn = self.screen.draw(|buffer| view::draw(model, theme, buffer));
        self.draw_at = (!drawn).then(|| Instant::now() + RETRY);
    }

    /// Reads the processes around the selected line: at every tick, and when another is selected.
    fn look_at_host(&mut self, ticked: bool) {
        let model = &mut self.model;
        let (lines, place) = model.lines();
        let line = lines.get(place).filter(|_| model.details);
        let before = model.host.take();
        model.host = line.and_then(|line| {
            let same = before.as_ref().map(|before| &before.selected) == model.tree.key(line);
            match same && !ticked {
                true => before,
                false => HostSide::read(&model.tree, line, before.as_ref()),
            }
        });
    }
}

/// Waits until then; for ever where there is no then.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
