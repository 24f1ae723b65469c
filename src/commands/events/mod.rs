//! `events`: the statistics of containers, once or as a stream.

mod follow;
mod show;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shimstat::node::{Container, Inventory, Wanted};
use shimstat::survey::{AskError, Network, NotRunning, Origin, Sample, Statistics, Survey, Via};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::cli::{EventFormat, EventSource, Events};
use crate::context::Context;
use crate::descriptors;
use crate::exit::{self, Failure, Remedy};
use crate::find::{self, Found};
use crate::interrupt;
use crate::output;
use follow::{Follower, News, Rounds, Subject};
use show::EventPrinter;

/// How much news can wait to be shown; beyond that followers wait.
const WAITING: usize = 256;

/// How often to look for new containers, at least.
const LOOK: Duration = Duration::from_secs(1);

/// How often a stream says what it costs, with `--verbose`.
const COST_NOTED_EVERY: Duration = Duration::from_secs(60);

pub async fn run(context: &Context, arguments: &Events) -> Result<(), Failure> {
    if !arguments.stats {
        interrupt::ends_quietly();
    }
    let mut inventory = Inventory::new(context.node.clone());
    if arguments.all {
        descriptors::allow_many();
    }
    let run = Run::new(context, arguments)?;
    if arguments.all {
        if arguments.stats {
            run.all_once().await
        } else {
            run.all(&mut inventory).await
        }
    } else {
        run.named(&mut inventory).await
    }
}

/// One run of the command.
struct Run<'a> {
    context: &'a Context,
    arguments: &'a Events,
    survey: Survey,
    question: Statistics,
    show: EventPrinter,
    /// Whether something could not be answered.
    failed: bool,
    /// Whether it was said why a network cannot be seen.
    said_hidden: bool,
    /// When a stream last said what it costs.
    cost_noted: Instant,
    to_show: mpsc::Sender<(Arc<Subject>, News)>,
    news: mpsc::Receiver<(Arc<Subject>, News)>,
}

impl<'a> Run<'a> {
    fn new(context: &'a Context, arguments: &'a Events) -> Result<Self, Failure> {
        let (to_show, news) = mpsc::channel(WAITING);
        // A stream asks repeatedly.
        let survey = match arguments.stats {
            true => context.survey(),
            false => context.survey().keeping_connections(),
        };
        let survey = survey.at_pace(arguments.pacing.pace());
        Ok(Self {
            context,
            arguments,
            survey,
            question: Statistics {
                network: match arguments.format {
                    // Tables have no sockets, and counting them takes time.
                    EventFormat::Table | EventFormat::Wide | EventFormat::Csv => Network::Interfaces,
                    EventFormat::Pretty | EventFormat::Json => Network::InterfacesAndSockets,
                },
                via: match arguments.via {
                    None => Via::Both,
                    Some(EventSource::Shim) => Via::Shim,
                    Some(EventSource::Guest) => Via::Guest,
                },
            },
            show: EventPrinter::new(arguments)?,
            failed: false,
            said_hidden: false,
            cost_noted: Instant::now(),
            to_show,
            news,
        })
    }

    /// The containers that the user named, until all of them have stopped.
    async fn named(mut self, inventory: &mut Inventory) -> Result<(), Failure> {
        let given: Vec<&str> = match self.arguments.containers.as_slice() {
            // Users know our own message for a missing id.
            [] => vec![""],
            given => given.iter().map(String::as_str).collect(),
        };
        let wanted: Vec<_> = given
            .iter()
            .map(|text| find::wanted(text))
            .collect::<Result<_, _>>()?;
        let mut subjects: Vec<Arc<Subject>> = Vec::new();
        for (wanted, given) in wanted.iter().zip(given) {
            match self.find(inventory, wanted, given).await {
                // Two names can mean the same container.
                Ok(subject)
                    if subjects
                        .iter()
                        .any(|s| s.container.bundle == subject.container.bundle) => {}
                Ok(subject) => subjects.push(subject),
                Err(failure) => self.fail(&failure),
            }
        }
        self.show
            .expect(subjects.iter().map(|subject| &subject.container));
        for subject in subjects {
            self.follow(subject);
        }
        self.tell_all().await
    }

    /// Shows what the followers find until the last of them has ended, or the user interrupts.
    async fn tell_all(mut self) -> Result<(), Failure> {
        // The channel closes with the last follower's sender.
        let (closed, _) = mpsc::channel(1);
        self.to_show = closed;
        while let Some((subject, news)) = self.news.recv().await {
            self.tell(&subject, news)?;
        }
        self.show.end()?;
        self.end()
    }

    /// One event for each running container. Each is asked as soon as its bundle has been read.
    async fn all_once(mut self) -> Result<(), Failure> {
        let bundles = self.context.bundles()?;
        if bundles.is_empty() {
            self.context.tell_none();
        }
        let mut subjects = Vec::new();
        for bundle in bundles {
            // One that is being created is not running yet.
            if let Some(container) = Container::read(bundle)
                && let Some(subject) = self.subject(Arc::new(container), None)
            {
                if self.arguments.format.has_rates() {
                    subjects.push(subject);
                } else {
                    self.follow(subject);
                }
            }
            tokio::task::yield_now().await;
        }
        // A table's first column is as wide as the longest name.
        self.show
            .expect(subjects.iter().map(|subject| &subject.container));
        for subject in subjects {
            self.follow(subject);
        }
        self.tell_all().await
    }

    /// All running containers and new ones, until the user interrupts.
    async fn all(mut self, inventory: &mut Inventory) -> Result<(), Failure> {
        let mut followed = HashMap::new();
        self.look(inventory, &mut followed).await?;
        if followed.is_empty() {
            self.context.tell_none();
        }
        let mut looks = tokio::time::interval(self.arguments.interval.min(LOOK));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first look, which is immediate, has been done.
        looks.tick().await;
        let mut said = None;
        loop {
            tokio::select! {
                // `self` holds a sender, so the channel stays open.
                Some((subject, news)) = self.news.recv() => self.tell(&subject, news)?,
                _ = looks.tick() => {
                    let failure = self.look(inventory, &mut followed).await.err();
                    if failure != said && let Some(failure) = &failure {
                        output::report(failure);
                    }
                    said = failure;
                }
            }
        }
    }

    /// Follows the containers that are new since the last look.
    async fn look(
        &mut self,
        inventory: &mut Inventory,
        followed: &mut HashMap<PathBuf, Arc<Container>>,
    ) -> Result<(), Failure> {
        let containers = self.context.read(inventory).await?;
        let mut new = Vec::new();
        let mut there = HashMap::with_capacity(containers.len());
        for container in containers {
            let path = container.bundle.path.clone();
            if !followed
                .get(&path)
                .is_some_and(|old| Arc::ptr_eq(old, &container))
            {
                new.push(container.clone());
            }
            there.insert(path, container);
        }
        *followed = there;
        let addresses: HashSet<_> = followed
            .values()
            .filter_map(|container| container.endpoint())
            .map(|endpoint| &endpoint.address)
            .collect();
        self.survey.keep(|address| addresses.contains(address));
        if !new.is_empty() {
            self.show.expect(followed.values());
        }
        for container in new {
            if let Some(subject) = self.subject(container, None) {
                self.follow(subject);
            }
        }
        Ok(())
    }

    async fn find(
        &mut self,
        inventory: &mut Inventory,
        wanted: &Wanted,
        given: &str,
    ) -> Result<Arc<Subject>, Failure> {
        let container = match find::container(self.context, inventory, wanted, given).await? {
            Found::Container(container) => container,
            Found::Nothing(nothing) => return Err(does_not_exist(given, nothing.found, &nothing.remedy)),
        };
        // What is wrong has been reported.
        self.subject(container, Some(given)).ok_or_else(Failure::reported)
    }

    /// A container to follow. `None`, which is reported, if its shim's address is not known.
    fn subject(&mut self, container: Arc<Container>, given: Option<&str>) -> Option<Arc<Subject>> {
        let subject = Subject {
            given: given.map(str::to_string),
            container,
            origin: Mutex::default(),
        };
        let (id, bundle) = (subject.container.id(), &subject.container.bundle);
        match &subject.container.source {
            Ok(source) => {
                let context = self.context;
                context.note(|| format!("container {id}: bundle {}", bundle.path.display()));
                context.note(|| format!("container {id}: {}", show::source(source)));
                Some(Arc::new(subject))
            }
            Err(error) => {
                self.fail(&Failure::of(&format!("container {id}"), error.as_ref()));
                None
            }
        }
    }

    fn follow(&self, subject: Arc<Subject>) {
        let follower = Follower {
            subject,
            survey: self.survey.clone(),
            question: self.question,
            news: self.to_show.clone(),
        };
        let rounds = match (self.arguments.stats, self.arguments.format) {
            (true, format) if format.has_rates() => Rounds::Two,
            (true, _) => Rounds::One,
            (false, _) => Rounds::Every(self.arguments.interval),
        };
        tokio::spawn(follower.run(rounds));
    }

    /// Shows what was found out about a container.
    fn tell(&mut self, subject: &Subject, news: News) -> Result<(), Failure> {
        if self.cost_noted.elapsed() >= COST_NOTED_EVERY {
            self.cost_noted = Instant::now();
            self.context.note_cost(&self.survey);
        }
        match news {
            News::Stats { sample, rates } => {
                let hidden = match sample.stats.network {
                    Some(_) => None,
                    None => self.survey.hides_network(sample.state.pid),
                };
                if let Some(why) = hidden.filter(|_| !std::mem::replace(&mut self.said_hidden, true)) {
                    output::notice(exit::hidden(why));
                }
                if self.context.verbose {
                    subject.tell_origin(&sample);
                }
                self.show
                    .stats(&subject.container, sample, rates, hidden.is_some())
            }
            News::OomKill => self.show.oom(&subject.container),
            News::Exit(why, ended) => {
                self.show.exit(&subject.container, &why, ended)?;
                output::notice(&format!(
                    "container {} is no longer running: {why}",
                    subject.container.id()
                ));
                Ok(())
            }
            // --all means those with statistics.
            News::NoAnswer(error @ AskError::NoStatistics(_)) if subject.given.is_none() => {
                self.context
                    .note(|| format!("container {}: {error}", subject.container.id()));
                Ok(())
            }
            News::NoAnswer(error) if self.arguments.stats || matches!(error, AskError::NoStatistics(_)) => {
                self.fail(&Failure::of(
                    &format!("container {}", subject.container.id()),
                    &error,
                ));
                Ok(())
            }
            // The stream continues: the next sample may succeed.
            News::NoAnswer(error) => {
                output::notice(&format!("container {}: {error}", subject.container.id()));
                Ok(())
            }
            News::NeverRan(why) => {
                match (&subject.given, &why) {
                    (Some(given), _) => self.fail(&does_not_exist(given, why.to_string(), why.remedy())),
                    // --all means those that run.
                    (None, NotRunning::Gone(_)) => {
                        output::notice(&format!(
                            "container {} is not running: {why}",
                            subject.container.id()
                        ));
                    }
                    (None, _) => self
                        .context
                        .note(|| format!("container {} is not running: {why}", subject.container.id())),
                }
                Ok(())
            }
        }
    }

    /// Reports what could not be answered; the rest continues.
    fn fail(&mut self, failure: &Failure) {
        output::report(failure);
        self.failed = true;
    }

    fn end(self) -> Result<(), Failure> {
        self.context.note_cost(&self.survey);
        if self.failed {
            Err(Failure::reported())
        } else {
            Ok(())
        }
    }
}

impl Subject {
    /// Reports where a sample's numbers come from, if that has changed.
    fn tell_origin(&self, sample: &Sample) {
        let origin = match &sample.origin {
            Origin::Cgroup => "from its cgroup: it has no shim".to_string(),
            Origin::Shim => "from its shim".to_string(),
            Origin::ShimWithoutGuest(why) => format!("from its shim alone: its guest cannot be asked: {why}"),
            Origin::Both { agent, fields } => {
                format!(
                    "from its shim, but from its guest ({agent}): {}",
                    fields.join(", ")
                )
            }
            Origin::Guest { agent } => format!("from its guest ({agent})"),
            Origin::ControlSocket(address) => format!("from its sandbox's control socket ({address})"),
            Origin::GvisorShim(why) => {
                format!(
                    "from its shim, which starts two processes to answer: its sandbox was not asked: {why}"
                )
            }
        };
        let mut told = self.origin.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != origin {
            output::notice(&format!("container {}: {origin}", self.container.id()));
            *told = origin;
        }
    }
}

/// The message that users of `kata-runtime events` know, and what was found.
fn does_not_exist(given: &str, found: String, remedy: &str) -> Failure {
    Failure::new(format!("Container ID ({given}) does not exist"))
        .and(found)
        .and(remedy)
}
