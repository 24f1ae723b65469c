//! `events`: the statistics of containers, once or as a stream.

mod follow;
mod show;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use go_duration as duration;
use shimstat::node::{Bundle, Container, Inventory, Wanted};
use shimstat::shim::address::Endpoint;
use shimstat::survey::{AskError, NotRunning, Survey};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::find::{self, Found};
use super::{AT_ONCE, Context, with_remedy};
use crate::cli::{EventFormat, Events};
use crate::descriptors;
use crate::exit::Failure;
use crate::interrupt;
use crate::output;
use follow::{Follower, News, Rounds};
use show::Show;

/// News that wait to be shown; followers wait where there are more.
const WAITING: usize = 256;

/// How often the node is looked at for new containers, at the least.
const LOOK: Duration = Duration::from_secs(1);

pub async fn run(context: &Context, arguments: &Events) -> Result<(), Failure> {
    if !arguments.stats {
        interrupt::ends_quietly();
    }
    let mut inventory = Inventory::new(context.node.clone());
    let run = Run::new(context, arguments);
    if arguments.all {
        descriptors::allow_many();
        if arguments.stats {
            run.everything_once().await
        } else {
            run.everything(&mut inventory).await
        }
    } else {
        run.those(&mut inventory).await
    }
}

/// A container that is followed.
struct Subject {
    /// As the user gave it; `None` where it was not named (`--all`).
    given: Option<String>,
    bundle: Bundle,
    endpoint: Endpoint,
    /// `namespace/pod/container`, where that is known and wanted.
    name: Option<String>,
}

/// One run of the command.
struct Run<'a> {
    context: &'a Context,
    arguments: &'a Events,
    survey: Survey,
    show: Show,
    /// Whether something could not be answered.
    failed: bool,
    to_show: mpsc::Sender<(Arc<Subject>, News)>,
    news: mpsc::Receiver<(Arc<Subject>, News)>,
}

impl<'a> Run<'a> {
    fn new(context: &'a Context, arguments: &'a Events) -> Self {
        let (to_show, news) = mpsc::channel(WAITING);
        let survey = Survey::new(context.timeout, AT_ONCE);
        Self {
            context,
            arguments,
            survey: match arguments.format {
                // The table does not show them, and they cost time.
                EventFormat::Table => survey,
                EventFormat::Pretty | EventFormat::Json => survey.counting_sockets(),
            },
            show: Show::new(arguments.format),
            failed: false,
            to_show,
            news,
        }
    }

    /// The containers that the user named, until all of them have stopped.
    async fn those(mut self, inventory: &mut Inventory) -> Result<(), Failure> {
        let given: Vec<&str> = match self.arguments.containers.as_slice() {
            // The sentence that users know for a missing id is our own.
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
                // The same container by two names is one.
                Ok(subject) if subjects.iter().any(|s| s.bundle.path == subject.bundle.path) => {}
                Ok(subject) => subjects.push(Arc::new(subject)),
                Err(failure) => self.fail(&failure),
            }
        }
        self.show.expect(subjects.iter().map(|subject| subject.label()));
        for subject in subjects {
            self.follow(subject);
        }
        self.tell_all().await
    }

    /// Shows what followers find, until the last of them has ended or the user interrupts.
    async fn tell_all(mut self) -> Result<(), Failure> {
        // The channel closes with the last follower's sender.
        let (closed, _) = mpsc::channel(1);
        self.to_show = closed;
        while let Some((subject, news)) = self.news.recv().await {
            self.tell(&subject, news)?;
        }
        self.end()
    }

    /// An answer about every container that runs. Each is asked as soon as its bundle is read.
    async fn everything_once(mut self) -> Result<(), Failure> {
        let bundles = self.context.bundles()?;
        if bundles.is_empty() {
            output::notice(&format!("no containers: {}", self.context.node.looked_in()));
        }
        let mut subjects = Vec::new();
        for bundle in bundles {
            match self.subject(bundle, None) {
                Ok(Some(subject)) if self.arguments.format == EventFormat::Table => subjects.push(subject),
                Ok(Some(subject)) => self.follow(Arc::new(subject)),
                // It is being created.
                Ok(None) => {}
                Err(failure) => self.fail(&failure),
            }
            tokio::task::yield_now().await;
        }
        // A table's first column is as wide as the longest name.
        self.show.expect(subjects.iter().map(Subject::label));
        for subject in subjects {
            self.follow(Arc::new(subject));
        }
        self.tell_all().await
    }

    /// Every container that runs, and those that come, until the user interrupts.
    async fn everything(mut self, inventory: &mut Inventory) -> Result<(), Failure> {
        let mut followed = HashMap::new();
        self.look(inventory, &mut followed)?;
        if followed.is_empty() {
            output::notice(&format!("no containers: {}", self.context.node.looked_in()));
        }
        let mut looks = tokio::time::interval(self.arguments.interval.min(LOOK));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first one is at once, and was.
        looks.tick().await;
        let mut said = None;
        loop {
            tokio::select! {
                // A sender is kept here, so that the channel does not close.
                Some((subject, news)) = self.news.recv() => self.tell(&subject, news)?,
                _ = looks.tick() => {
                    let failure = self.look(inventory, &mut followed).err();
                    if failure != said && let Some(failure) = &failure {
                        failure.report();
                    }
                    said = failure;
                }
            }
        }
    }

    /// Follows the containers that were not there the last time.
    fn look(
        &mut self,
        inventory: &mut Inventory,
        followed: &mut HashMap<PathBuf, Arc<Container>>,
    ) -> Result<(), Failure> {
        let containers = self.context.read(inventory)?;
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
            .filter_map(|container| container.endpoint.as_ref().ok())
            .map(|endpoint| &endpoint.address)
            .collect();
        self.survey.keep(|address| addresses.contains(address));
        let subjects: Vec<_> = new
            .iter()
            .filter_map(|container| self.subject_of(container))
            .collect();
        self.show.expect(subjects.iter().map(|subject| subject.label()));
        for subject in subjects {
            self.follow(subject);
        }
        Ok(())
    }

    fn subject_of(&mut self, container: &Container) -> Option<Arc<Subject>> {
        match &container.endpoint {
            Ok(endpoint) => Some(Arc::new(Subject {
                given: None,
                bundle: container.bundle.clone(),
                endpoint: endpoint.clone(),
                name: container.name(),
            })),
            Err(why) => {
                self.fail(&with_remedy(format!("container {}: {why}", container.bundle.id)));
                None
            }
        }
    }

    async fn find(
        &self,
        inventory: &mut Inventory,
        wanted: &Wanted,
        given: &str,
    ) -> Result<Subject, Failure> {
        let context = self.context;
        let bundle = match find::task(context, inventory, wanted, given).await? {
            Found::Task(bundle) => bundle,
            Found::Nothing(looked) => return Err(does_not_exist(given, looked)),
        };
        let path = bundle.path.display().to_string();
        self.subject(bundle, Some(given))?
            .ok_or_else(|| does_not_exist(given, format!("no shim has been started in {path}")))
    }

    /// The container of a bundle; `None` where it is being created.
    fn subject(&self, bundle: Bundle, given: Option<&str>) -> Result<Option<Subject>, Failure> {
        let context = self.context;
        let endpoint = bundle
            .endpoint()
            .map_err(|error| with_remedy(format!("container {}: {error}", bundle.id)))?;
        let Some(endpoint) = endpoint else {
            return Ok(None);
        };
        context.note(|| format!("container {}: bundle {}", bundle.id, bundle.path.display()));
        context.note(|| {
            format!(
                "container {}: shim {} ({:?})",
                bundle.id, endpoint.address, endpoint.version
            )
        });
        let name = match self.arguments.format {
            EventFormat::Table => Container::read(bundle.clone()).and_then(|container| container.name()),
            // Nothing is read that is not shown.
            EventFormat::Pretty | EventFormat::Json => None,
        };
        Ok(Some(Subject {
            given: given.map(str::to_string),
            bundle,
            endpoint,
            name,
        }))
    }

    fn follow(&self, subject: Arc<Subject>) {
        let follower = Follower {
            subject,
            survey: self.survey.clone(),
            news: self.to_show.clone(),
        };
        let rounds = match (self.arguments.stats, self.arguments.format) {
            (true, EventFormat::Table) => Rounds::Two,
            (true, _) => Rounds::One,
            (false, _) => Rounds::Every(self.arguments.interval),
        };
        tokio::spawn(follower.run(rounds));
    }

    /// Shows what became known of a container.
    fn tell(&mut self, subject: &Subject, news: News) -> Result<(), Failure> {
        match news {
            News::Stats { sample, rates } => self.show.stats(subject, &sample, rates.as_ref()),
            News::OomKill => self.show.oom(subject),
            News::Exit(why) => {
                self.show.exit(subject, &why)?;
                output::notice(&format!(
                    "container {} is no longer running: {why}",
                    subject.bundle.id
                ));
                Ok(())
            }
            News::Trouble(error) if self.arguments.stats => {
                self.fail(&subject.failure(&error, self.context));
                Ok(())
            }
            // The stream goes on: the next answer may come.
            News::Trouble(error) => {
                output::notice(&format!("container {}: {error}", subject.bundle.id));
                Ok(())
            }
            News::NeverRan(why) => {
                match (&subject.given, &why) {
                    (Some(given), _) => self.fail(&does_not_exist(given, why.to_string())),
                    // Of all containers it is those that run that are asked for.
                    (None, NotRunning::Gone(_)) => {
                        output::notice(&format!("container {} is not running: {why}", subject.bundle.id));
                    }
                    (None, _) => self
                        .context
                        .note(|| format!("container {} is not running: {why}", subject.bundle.id)),
                }
                Ok(())
            }
        }
    }

    /// Says what could not be answered; the rest goes on.
    fn fail(&mut self, failure: &Failure) {
        failure.report();
        self.failed = true;
    }

    fn end(self) -> Result<(), Failure> {
        if self.failed { Err(Failure::told()) } else { Ok(()) }
    }
}

impl Subject {
    /// What people call it: its name, or its id.
    fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.bundle.id)
    }

    fn failure(&self, error: &AskError, context: &Context) -> Failure {
        match error {
            AskError::Unanswered { .. } => Failure::new(format!("container {}: {error}", self.bundle.id))
                .and(format!(
                    "the shim may be stopped, or its guest hung; wait longer than {} with --timeout",
                    duration::show(context.timeout)
                )),
            _ => with_remedy(format!("container {}: {error}", self.bundle.id)),
        }
    }
}

/// The sentence that users of `kata-runtime events` know, then what was found.
fn does_not_exist(given: &str, found: String) -> Failure {
    Failure::new(format!("Container ID ({given}) does not exist")).and(found)
}
