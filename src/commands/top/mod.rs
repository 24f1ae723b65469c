//! `top`: a live view of everything on the node, in the terminal.
//!
//! At each tick the node is read and all tasks are asked at once. The answers are drawn when all have arrived, or a
//! quarter of a second later. A task is not asked again until it has answered.

mod asking;
#[cfg(test)]
mod fixtures;
mod guests;
mod host;
mod input;
mod keys;
mod model;
mod row;
mod screen;
mod signals;
mod tree;
mod view;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shimstat::node::{Container, Inventory};

use self::asking::Asking;
use self::guests::Guests;
use self::host::HostSide;
use self::keys::{Decoder, Key};
use self::model::{Model, Request};
use self::screen::Screen;
use self::signals::{Signal, Signals};
use self::view::Theme;
use crate::cli::Top;
use crate::context::Context;
use crate::descriptors;
use crate::exit::Failure;
use crate::ticks::Ticks;

/// How long to wait for all answers of a tick before drawing those that have arrived.
const PATIENCE: Duration = Duration::from_millis(250);

/// How soon more bytes must follow an escape character that starts a key's sequence: on a slow line they can arrive
/// separately.
const ESCAPE_TIME: Duration = Duration::from_millis(50);

/// How soon to try again to draw a frame that the terminal had no room for.
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
    let survey = context
        .survey()
        .keeping_connections()
        .at_pace(arguments.pacing.pace());
    let watch = Watch {
        context,
        model,
        inventory,
        guests: Guests::new(survey.clone()),
        asking: Asking::new(survey.clone()),
        screen: Screen::open().map_err(failed)?,
        theme: Theme::of_environment(),
        noted: true,
        draw_at: Some(Instant::now()),
    };
    let ended = watch.run(signals).await;
    context.note_cost(&survey);
    match ended {
        // The terminal has been restored by now.
        Ok(None) => Ok(()),
        Ok(Some(signal)) => signal.die(),
        Err(error) => Err(failed(error)),
    }
}

/// A file or a pipe cannot be drawn on.
fn check_terminal() -> Result<(), Failure> {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    if io::stdin().is_terminal() && io::stdout().is_terminal() && !dumb {
        return Ok(());
    }
    let why = if dumb && io::stdout().is_terminal() {
        "top needs a terminal that can move its cursor, which this one cannot according to TERM"
    } else {
        "top needs a terminal for its input and output"
    };
    Err(Failure::usage(why).and(
        "for pipes and files: kata-runtime events --all --format table (or json), and kata-runtime list",
    ))
}

/// The running view.
struct Watch<'a> {
    context: &'a Context,
    model: Model,
    inventory: Inventory,
    asking: Asking,
    guests: Guests,
    screen: Screen,
    theme: Theme,
    /// Whether the pods' sums of this tick are in their histories.
    noted: bool,
    draw_at: Option<Instant>,
}

impl Watch<'_> {
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
                        // The terminal is gone, and the signal for that is ignored (nohup).
                        return Ok(None);
                    }
                    for key in keys.feed(&bytes) {
                        if self.press(key).await? {
                            return Ok(None);
                        }
                    }
                }
                () = tokio::time::sleep(ESCAPE_TIME), if keys.is_waiting() => {
                    if let Some(key) = keys.settle()
                        && self.press(key).await?
                    {
                        return Ok(None);
                    }
                }
                () = self.asking.complete() => self.draw_soon(Duration::ZERO),
                () = self.guests.next() => self.draw_soon(Duration::ZERO),
                () = sleep_until(self.draw_at), if self.draw_at.is_some() => self.draw(),
                () = ticks.tick(), if !self.model.paused => self.tick().await,
            }
        }
    }

    /// Does what a key means. Returns whether to quit.
    async fn press(&mut self, key: Key) -> io::Result<bool> {
        let Some(action) = input::action(self.model.mode, key) else {
            return Ok(false);
        };
        match self.model.act(action) {
            Some(Request::Quit) => return Ok(true),
            Some(Request::Suspend) => self.suspend()?,
            Some(Request::Redraw) => self.screen.refresh(),
            Some(Request::Ask) => self.tick().await,
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

    /// Reads the node, and asks every container that has answered the last time.
    async fn tick(&mut self) {
        self.take_answers();
        self.note();
        match self.read().await {
            Ok(containers) => {
                self.model.fault = None;
                self.model.update(containers);
                self.asking.keep(self.model.tree.containers());
                self.guests
                    .keep(&self.model.tree.pods().map(|pod| &pod.key).collect());
            }
            Err(failure) => self.model.fault = failure.lines().first().cloned(),
        }
        self.noted = false;
        self.asking.ask(self.model.tree.containers());
        self.draw_soon(PATIENCE);
    }

    async fn read(&mut self) -> Result<Vec<Arc<Container>>, Failure> {
        self.context.expect_an_answer().await?;
        Ok(self.inventory.read()?)
    }

    fn take_answers(&mut self) {
        while let Some((container, answer)) = self.asking.take() {
            self.model.tree.answer(&container, answer);
        }
    }

    /// Draws a frame after this time, or earlier if that was planned already.
    fn draw_soon(&mut self, after: Duration) {
        let at = Instant::now() + after;
        self.draw_at = Some(self.draw_at.map_or(at, |before| before.min(at)));
    }

    /// Adds the pods' sums to their histories once the answers of a tick have arrived.
    fn note(&mut self) {
        if !self.noted {
            self.model.tree.note_pods();
            self.noted = true;
        }
    }

    fn draw(&mut self) {
        self.take_answers();
        self.model.hidden = self.asking.hidden();
        let ticked = self.asking.is_over() && !self.noted;
        if ticked {
            self.note();
        }
        self.look_at_host(ticked);
        self.look_at_guest();
        let (model, theme) = (&mut self.model, &self.theme);
        let drawn = self.screen.draw(|buffer| view::draw(model, theme, buffer));
        self.draw_at = (!drawn).then(|| Instant::now() + RETRY);
    }

    /// Reads the processes around the selected line: at each tick, and when another line is selected.
    fn look_at_host(&mut self, ticked: bool) {
        let model = &mut self.model;
        // Its bundle cannot be read now.
        if model.fault.is_some() {
            return;
        }
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

    /// Shows what the guest of the selected line's pod has told, and asks it now and then.
    fn look_at_guest(&mut self) {
        let model = &mut self.model;
        let (lines, place) = model.lines();
        let line = lines.get(place).filter(|_| model.details);
        let pod = line.and_then(|line| model.tree.group(line));
        model.guest = pod.filter(|pod| pod.may_have_guest()).and_then(|pod| {
            self.guests.want(&pod.key, pod.containers());
            self.guests.of(&pod.key)
        });
        model.guests_tell |= model.guest.is_some();
    }
}

/// Waits until a time, or forever without one.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
