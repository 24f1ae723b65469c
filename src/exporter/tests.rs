//! The gathering under simulated time: scrapers come and go, share scrapes and give up, on simulated nodes whose shims,
//! monitors and guests do what they can. [`simulation`] checks what the sandboxes are asked; what the scrapers are told is
//! checked here.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use exporter_web::Source;
use shimstat::node::Pod;
use shimstat::survey::{ConcurrencyLimit, MonitorQuestion};
use simulation::{ASKERS, Dice, Known, Record, Run, What, World, in_simulated_time};
use simulation::{keeps_promises, repeats_itself};
use tokio::time::Instant;

use super::profile::Selection;
use super::scrape::{FRESH, Scraper};

/// All but what is read of this host: it has no simulated containers.
const EVERYTHING: &str = "-container_cpu_cfs_,-container_file_descriptors,-container_fs_,-container_processes,\
    -container_sockets,-container_spec_,-container_threads_max,-container_ulimits_soft";
const STATISTICS: &str = "container_memory_,kata_monitor_container_up";
const PAGES: &str = "kata_shim_,kata_guest_";

/// What scrapers ask for: each asks the pods for something else, so there may be as many flights to a pod at once.
const SELECTIONS: [&str; 3] = [EVERYTHING, STATISTICS, PAGES];

/// Times are in whole milliseconds, and a timer may go off one later.
const TICK: Duration = Duration::from_millis(1);

#[test]
fn promises_are_kept_in_hundreds_of_runs() {
    keeps_promises(100, run);
}

#[test]
fn a_seed_tells_the_same_each_time() {
    for seed in 1..=20 {
        repeats_itself(seed, run);
    }
}

fn run(seed: u64) -> Run {
    in_simulated_time(gathering(seed))
}

async fn gathering(seed: u64) -> Run {
    let mut world = World::new(seed);
    let all: Vec<Pod> = world.known.iter().map(|known| known.pod.clone()).collect();
    let listed = Arc::new(Mutex::new(all));
    let list = listed.clone();
    let scraper = Arc::new(Scraper::new(
        Box::new(move || Ok(list.lock().unwrap().clone())),
        world.survey(),
        world.limit,
        ConcurrencyLimit::new(world.concurrency),
        false,
    ));
    let client = |number: u64, dice: Dice| Client {
        number,
        scraper: scraper.clone(),
        known: world.known.clone(),
        record: world.record.clone(),
        dice,
        until: Instant::now() + world.length,
    };
    let mut dice = world.dice.clone();
    let mut asking = vec![
        tokio::spawn(client(0, world.dice.of(2000)).be_held_up()),
        tokio::spawn(client(1, world.dice.of(2001)).change_pods(listed.clone())),
    ];
    for number in 2..4 + dice.below(6) {
        asking.push(tokio::spawn(client(number, world.dice.of(2000 + number)).run()));
    }
    world.dice = dice;
    world.all(asking).await;
    world.recover().await;
    *listed.lock().unwrap() = world.known.iter().map(|known| known.sandbox.pod()).collect();
    client(999, world.dice.of(2999)).scrape_all_that_are_well().await;
    world.expect_none_open("after the last scrape");
    drop(scraper);
    world.end().await
}

struct Client {
    number: u64,
    scraper: Arc<Scraper>,
    known: Arc<Vec<Known>>,
    record: Arc<Record>,
    dice: Dice,
    until: Instant,
}

/// A sample of a page: its name, what it is about, and its value.
struct PageSample<'a> {
    name: &'a str,
    id: &'a str,
    value: &'a str,
}

impl Client {
    /// Scrapes at multiples of an interval, so that many scrapers come at once.
    async fn run(mut self) {
        let begun = Instant::now();
        let interval = Duration::from_secs(self.dice.pick(&[1, 2, 5]));
        let mut next = begun + interval * self.dice.below(4) as u32;
        while next < self.until {
            tokio::time::sleep_until(next).await;
            let time = Duration::from_millis(100) + self.dice.time(Duration::from_secs(10));
            match self.dice.below(10) {
                0 | 1 => {
                    let families = self.dice.pick(&SELECTIONS);
                    let patience = self.dice.time(self.record.limit * 2);
                    let _ = tokio::time::timeout(patience, self.scrape(families, time)).await;
                }
                2 => self.one_sandbox(MonitorQuestion::Metrics, time).await,
                3 => self.one_sandbox(MonitorQuestion::AgentUrl, time).await,
                4 => self.scrape_twice(time).await,
                _ => {
                    let families = self.dice.pick(&SELECTIONS);
                    self.scrape(families, time).await;
                }
            }
            while next <= Instant::now() {
                next += interval;
            }
        }
    }

    /// The program is stopped for a while.
    async fn be_held_up(mut self) {
        let is_held_up = self.dice.percent(10);
        while is_held_up && Instant::now() < self.until {
            let pause = Duration::from_secs(1) + self.dice.time(Duration::from_secs(20));
            tokio::time::sleep(pause).await;
            let lost = self.dice.time(self.record.limit * 3);
            self.record.lose(lost).await;
        }
    }

    /// Pods are not listed for a while, and listed again: as they were, or made anew.
    async fn change_pods(mut self, listed: Arc<Mutex<Vec<Pod>>>) {
        let is_changing = self.dice.percent(50);
        while is_changing && Instant::now() < self.until {
            let pause = self.dice.time(Duration::from_secs(5));
            tokio::time::sleep(pause).await;
            let known = &self.known[self.dice.index(self.known.len())];
            let mut listed = listed.lock().unwrap();
            let count = listed.len();
            listed.retain(|pod| pod.id != known.pod.id);
            if listed.len() == count {
                listed.push(match self.dice.percent(50) {
                    true => known.pod.clone(),
                    false => known.sandbox.pod(),
                });
            }
        }
    }

    /// One scrape of the node.
    async fn scrape(&self, families: &str, time: Duration) -> String {
        let begun = Instant::now();
        let selection = Selection::of(families);
        let gathered = self.scraper.gather(&selection, begun + time).await;
        self.check_time("a scrape", begun, time);
        let mut page = gathered.unwrap().page(&selection);
        let mut text = Vec::new();
        while page.fill(&mut text, 1 << 20) {}
        let text = String::from_utf8(text).unwrap();
        self.check_page(&text, begun, time);
        text
    }

    /// Two scrapes that come at once are answered alike: they share their answers.
    async fn scrape_twice(&self, time: Duration) {
        let (one, other) = tokio::join!(self.scrape(STATISTICS, time), self.scrape(STATISTICS, time));
        let numbers = |page: &str| -> Vec<String> {
            let container = |line: &&str| line.starts_with("container_memory_usage_bytes{");
            page.lines().filter(container).map(str::to_string).collect()
        };
        if numbers(&one) != numbers(&other) {
            self.record
                .finding(format!("two scrapes at once differ:\n{one}\n{other}"));
        }
    }

    /// `/metrics?sandbox=` and `/agent-url`.
    async fn one_sandbox(&mut self, question: MonitorQuestion, time: Duration) {
        let known = &self.known[self.dice.index(self.known.len())];
        let sandbox = &known.sandbox;
        let begun = Instant::now();
        let id = sandbox.id(self.dice.index(sandbox.containers + 1));
        let answer = self.scraper.body(&id, question, begun + time).await;
        self.check_time("one sandbox", begun, time);
        let Ok(body) = answer else {
            return;
        };
        let text = String::from_utf8(body.to_vec()).unwrap();
        if question == MonitorQuestion::AgentUrl {
            assert!(text.starts_with("vsock://"), "{text}");
            return;
        }
        for sample in samples(&text) {
            let number = sample.value.parse().unwrap();
            sandbox.check(number, What::Page, "", self.oldest(begun));
        }
    }

    /// All are well, and all their rows have answers, whatever happened before.
    async fn scrape_all_that_are_well(&self) {
        let page = self.scrape(EVERYTHING, Duration::from_secs(100)).await;
        for known in self.known.iter() {
            let sandbox = &known.sandbox;
            for container in known.pod.all() {
                let is_up = is_up(&page, "kata_monitor_container_up", container.id());
                if is_up != Some(!sandbox.has_stopped(container.id())) {
                    let id = container.id();
                    self.record
                        .finding(format!("{id} is well, and its row is up: {is_up:?}"));
                }
            }
        }
    }

    fn check_time(&self, what: &'static str, begun: Instant, time: Duration) {
        let took = begun.elapsed();
        if took > time + TICK && !self.record.was_held_up(begun) {
            self.record.finding(format!("{what} took {took:?}, not {time:?}"));
        }
        self.record
            .note(ASKERS + self.number, what, took.as_millis() as u64);
    }

    /// Every number was sent by the sandbox that it is said of, as what it is said to be; and a healthy sandbox has its
    /// rows, if there was time for those that are asked at once.
    fn check_page(&self, page: &str, begun: Instant, time: Duration) {
        let oldest = self.oldest(begun);
        let mut count = 0;
        for sample in samples(page) {
            let what = match sample.name {
                "container_memory_usage_bytes" => What::Stats,
                "kata_shim_threads" | "kata_guest_load" if !sample.id.is_empty() => What::Page,
                _ => continue,
            };
            count += 1;
            let of = |known: &&Known| known.pod.all().any(|container| container.id() == sample.id);
            let Some(known) = self.known.iter().find(of) else {
                self.record.finding(format!(
                    "{} of {:?}, which is no container",
                    sample.name, sample.id
                ));
                continue;
            };
            let about = if what == What::Page { "" } else { sample.id };
            match sample.value.parse() {
                Ok(number) => known.sandbox.check(number, what, about, oldest),
                Err(_) => self.record.finding(format!("{} {}", sample.name, sample.value)),
            }
        }
        self.record.note(ASKERS + self.number, "numbers", count);
        // Each pod waits for its turn, and so does each question about it. Whoever hangs makes room after a tenth of a
        // second.
        let flights = self.known.len() * SELECTIONS.len() + self.known.len();
        let turn = Duration::from_millis(101) * (flights / self.record.concurrency + 1) as u32;
        if self.record.was_held_up(oldest) {
            return;
        }
        for known in self.known.iter().filter(|known| known.sandbox.is_healthy) {
            let questions = known.pod.all().count() as u32 + 1;
            let own = Duration::from_millis(60) * (SELECTIONS.len() as u32 + 1);
            let longest = turn + (turn + own) * questions;
            if longest > time.min(self.record.limit) {
                continue;
            }
            let ids = known.pod.all().map(|container| container.id());
            let rows = ids
                .map(|id| ("kata_monitor_container_up", id))
                .chain([("kata_monitor_sandbox_up", known.pod.id.as_str())]);
            for (name, id) in rows {
                if is_up(page, name, id) == Some(false) && !known.sandbox.has_stopped(id) {
                    self.record.finding(format!(
                        "{id} is healthy, and {name} is 0 after {:?}",
                        begun.elapsed()
                    ));
                }
            }
        }
    }

    /// When the oldest answer can have been sent that a scrape from then on is given: the scrape that it shares may have
    /// begun before, and all of a pod's answers are kept until the last is there.
    fn oldest(&self, begun: Instant) -> Instant {
        let turns = Duration::from_millis(101) * (self.known.len() * 4 / self.record.concurrency + 1) as u32;
        let age = self.record.limit + FRESH + turns + TICK * 2;
        let oldest = begun.checked_sub(age).unwrap();
        match self.record.was_held_up(oldest) {
            true => begun.checked_sub(Duration::from_secs(1000)).unwrap(),
            false => oldest,
        }
    }
}

fn is_up(page: &str, name: &str, id: &str) -> Option<bool> {
    let mut all = samples(page).filter(|sample| sample.name == name && sample.id == id);
    let found = all.next()?;
    assert!(all.next().is_none(), "{name} of {id} twice:\n{page}");
    Some(found.value == "1")
}

fn samples(page: &str) -> impl Iterator<Item = PageSample<'_>> {
    page.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = || {
            labels
                .trim_end_matches('}')
                .split(',')
                .filter_map(|label| label.split_once('='))
        };
        let label = |wanted: &str| labels().find(|(name, _)| *name == wanted);
        let (_, id) = label("id").or_else(|| label("sandbox_id")).unwrap_or_default();
        PageSample {
            name,
            id: id.trim_matches('"'),
            value,
        }
    })
}
