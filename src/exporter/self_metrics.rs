//! What the exporter tells of itself: its process and its scrapes, under kata-monitor's names.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use promtext::{Kind, Value, Writer};
use shimstat::node::processes;
use shimstat::survey::InducedCost;

/// The upper bounds of the histogram, in milliseconds: kata-monitor's.
const BOUNDS: [u64; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

/// Counts of scrapes.
#[derive(Debug, Default)]
pub struct ScrapeFigures {
    scrapes: AtomicU64,
    failed: AtomicU64,
    /// How many took so long, by bound; the last is for those beyond.
    took: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
}

impl ScrapeFigures {
    /// Counts a scrape that begins.
    pub fn begun(&self) {
        self.scrapes.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a scrape for which nothing could be gathered.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts how long the gathering for a scrape took.
    pub fn took(&self, time: Duration) {
        let place = BOUNDS
            .iter()
            .position(|bound| time <= Duration::from_millis(*bound));
        if let Some(count) = self.took.get(place.unwrap_or(BOUNDS.len())) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }

    /// Writes the families of scrapes and of the process.
    pub fn write(&self, writer: &mut Writer, sandboxes: usize, tasks: usize, induced: InducedCost) {
        let count = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        writer
            .family(
                "kata_monitor_running_shim_count",
                Kind::Gauge,
                "Sandboxes that are there.",
            )
            .sample(&[], sandboxes as u64);
        writer
            .family(
                "kata_monitor_scrape_count",
                Kind::Counter,
                "Scrapes, this one included.",
            )
            .sample(&[], count(&self.scrapes));
        writer
            .family(
                "kata_monitor_scrape_failed_count",
                Kind::Counter,
                "Scrapes that got no answer.",
            )
            .sample(&[], count(&self.failed));
        let mut took = writer.family(
            "kata_monitor_scrape_durations_histogram_milliseconds",
            Kind::Histogram,
            "Time taken to ask all sandboxes, of the scrapes before this one.",
        );
        let mut so_far = 0;
        for (bound, within) in BOUNDS.iter().zip(&self.took) {
            so_far += count(within);
            took.member("_bucket", &[("le", &bound.to_string())], so_far);
        }
        so_far += self.took.last().map_or(0, count);
        let milliseconds = count(&self.microseconds) as f64 / 1e3;
        took.member("_bucket", &[("le", "+Inf")], so_far)
            .member("_sum", &[], milliseconds)
            .member("_count", &[], so_far);
        let version = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("commit", env!("KATA_RUNTIME_COMMIT")),
        ];
        writer
            .family("kata_monitor_build_info", Kind::Gauge, "Version of the exporter.")
            .sample(&version, 1u64);
        writer
            .family(
                "kata_monitor_go_goroutines",
                Kind::Gauge,
                "Asynchronous tasks of the exporter, for dashboards of kata-monitor: it is not written in Go.",
            )
            .sample(&[], tasks as u64);
        let nanoseconds = u64::try_from(induced.cpu.as_nanos()).unwrap_or(u64::MAX);
        writer
            .family(
                "kata_monitor_answering_cpu_seconds_total",
                Kind::Counter,
                "CPU time that shims used while they answered the exporter, where it is known.",
            )
            .sample(&[], Value::Nanoseconds(nanoseconds));
        let mut answers = writer.family(
            "kata_monitor_answers_total",
            Kind::Counter,
            "Answers of shims, by whether the CPU time that they took is known.",
        );
        answers.sample(&[("cpu_known", "true")], induced.measured);
        answers.sample(&[("cpu_known", "false")], induced.unmeasured);
        Process::read().write(writer);
    }
}

/// What the kernel knows of a process.
#[derive(Debug, Default, PartialEq)]
struct Process {
    ticks: Option<u64>,
    threads: Option<u64>,
    started: Option<u64>,
    virtual_bytes: Option<u64>,
    resident_pages: Option<u64>,
    descriptors: Option<u64>,
    most_descriptors: Option<u64>,
    most_virtual_bytes: Option<u64>,
}

impl Process {
    fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let mut process = Self::parse(
            &text("/proc/self/stat"),
            &text("/proc/self/limits"),
            &text("/proc/stat"),
        );
        // One of them is the directory that is being read.
        let descriptors = fs::read_dir("/proc/self/fd").and_then(Iterator::collect::<Result<Vec<_>, _>>);
        process.descriptors = descriptors.ok().map(|all| (all.len() as u64).saturating_sub(1));
        process
    }

    fn parse(stat: &str, limits: &str, machine: &str) -> Self {
        // The name, in parentheses, may have anything in it.
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .map_or_else(Vec::new, |(_, rest)| rest.split_whitespace().collect());
        // Counted as proc(5) does: the first field here is the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let limit = |name: &str| {
            let soft = limits
                .lines()
                .find_map(|line| line.strip_prefix(name))?
                .split_whitespace()
                .next()?;
            Some(soft.parse().unwrap_or(u64::MAX))
        };
        let booted = machine
            .lines()
            .find_map(|line| line.strip_prefix("btime "))
            .and_then(|seconds| seconds.trim().parse::<u64>().ok());
        Self {
            ticks: field(14)
                .zip(field(15))
                .map(|(user, system)| user.saturating_add(system)),
            threads: field(20),
            started: field(22)
                .zip(booted)
                .map(|(ticks, booted)| booted.saturating_add(processes::ticks(ticks).as_secs())),
            virtual_bytes: field(23),
            resident_pages: field(24),
            descriptors: None,
            most_descriptors: limit("Max open files"),
            most_virtual_bytes: limit("Max address space"),
        }
    }

    fn write(&self, writer: &mut Writer) {
        let resident = self.resident_pages.map(|pages| pages.saturating_mul(page_size()));
        let time = self
            .ticks
            .and_then(|ticks| u64::try_from(processes::ticks(ticks).as_nanos()).ok());
        let threads = "Threads of the exporter, for dashboards of kata-monitor: it is not written in Go.";
        for (name, kind, help, value) in [
            (
                "kata_monitor_process_cpu_seconds_total",
                Kind::Counter,
                "CPU time of the exporter.",
                time.map(Value::Nanoseconds),
            ),
            (
                "kata_monitor_go_threads",
                Kind::Gauge,
                threads,
                self.threads.map(Value::Count),
            ),
            (
                "kata_monitor_process_open_fds",
                Kind::Gauge,
                "Descriptors that the exporter has open.",
                self.descriptors.map(Value::Count),
            ),
            (
                "kata_monitor_process_max_fds",
                Kind::Gauge,
                "Descriptors that it may have open.",
                self.most_descriptors.map(Value::Count),
            ),
            (
                "kata_monitor_process_virtual_memory_bytes",
                Kind::Gauge,
                "Virtual memory of the exporter.",
                self.virtual_bytes.map(Value::Count),
            ),
            (
                "kata_monitor_process_virtual_memory_max_bytes",
                Kind::Gauge,
                "Virtual memory that it may have.",
                self.most_virtual_bytes.map(Value::Count),
            ),
            (
                "kata_monitor_process_resident_memory_bytes",
                Kind::Gauge,
                "Resident memory of the exporter.",
                resident.map(Value::Count),
            ),
            (
                "kata_monitor_process_start_time_seconds",
                Kind::Gauge,
                "When the exporter was started, in seconds since 1970.",
                self.started.map(Value::Count),
            ),
        ] {
            if let Some(value) = value {
                writer.family(name, kind, help).sample(&[], value);
            }
        }
    }
}

fn page_size() -> u64 {
    // SAFETY: sysconf reads a constant.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;
    use promtext::{Filter, Merge, Page, Relabel};

    fn text(writer: Writer) -> String {
        let page = Page::read(writer.into_text(), Relabel::default()).unwrap();
        assert_eq!(page.tally().lost, 0);
        String::from_utf8(Merge::new(vec![page], &Filter::default()).into_bytes()).unwrap()
    }

    #[test]
    fn scrapes_are_counted_as_kata_monitor_does() {
        let figures = ScrapeFigures::default();
        for millis in [0, 1, 3, 512, 513, 60_000] {
            figures.begun();
            figures.took(Duration::from_millis(millis));
        }
        figures.begun();
        figures.failed();
        let mut writer = Writer::default();
        let induced = InducedCost {
            cpu: Duration::from_micros(1500),
            measured: 2,
            unmeasured: 1,
        };
        figures.write(&mut writer, 3, 2, induced);
        let text = text(writer);
        let name = "kata_monitor_scrape_durations_histogram_milliseconds";
        for line in [
            "kata_monitor_running_shim_count 3".to_string(),
            "kata_monitor_scrape_count 7".to_string(),
            "kata_monitor_scrape_failed_count 1".to_string(),
            "kata_monitor_answering_cpu_seconds_total 0.0015".to_string(),
            "kata_monitor_answers_total{cpu_known=\"false\"} 1".to_string(),
            format!("# TYPE {name} histogram"),
            format!("{name}_bucket{{le=\"1\"}} 2"),
            format!("{name}_bucket{{le=\"2\"}} 2"),
            format!("{name}_bucket{{le=\"4\"}} 3"),
            format!("{name}_bucket{{le=\"512\"}} 4"),
            format!("{name}_bucket{{le=\"+Inf\"}} 6"),
            format!("{name}_sum 61029"),
            format!("{name}_count 6"),
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line:?} is not in\n{text}"
            );
        }
    }

    #[test]
    fn reads_what_the_kernel_says_of_a_process() {
        // proc(5)'s fields with a name that is made to confuse; utime 250, stime 50, 4 threads, start 12345, vsize
        // 1000000, rss 77.
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 12345 1000000 77 18446744073709551615";
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max cpu time              unlimited            unlimited            seconds   \n\
                      Max open files            1024                 4096                 files     \n\
                      Max address space         unlimited            unlimited            bytes     \n";
        let process = Process::parse(stat, limits, "cpu 1 2\nbtime 1700000000\n");
        let expected = Process {
            ticks: Some(300),
            threads: Some(4),
            started: Some(1_700_000_123),
            virtual_bytes: Some(1_000_000),
            resident_pages: Some(77),
            descriptors: None,
            most_descriptors: Some(1024),
            most_virtual_bytes: Some(u64::MAX),
        };
        assert_eq!(process, expected);
        assert_eq!(Process::parse("", "", ""), Process::default());
        let mut writer = Writer::default();
        process.write(&mut writer);
        let text = text(writer);
        assert!(
            text.contains("kata_monitor_process_cpu_seconds_total 3\n"),
            "{text}"
        );
        assert!(!text.contains("open_fds"), "what is not known is left out");
    }

    #[test]
    fn knows_itself() {
        let process = Process::read();
        assert!(process.descriptors.is_some_and(|count| count >= 3));
        assert!(process.resident_pages.is_some_and(|pages| pages > 100));
    }
}
