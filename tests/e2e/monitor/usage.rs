//! What Prometheus says that containers use, beside their own cgroups.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{monitor, prometheus, run_pod, value};
use crate::rates::near;
use crate::support::{Task, eventually, for_each_containerd};
use crate::tsdb::Prometheus;

/// Seconds since 1970.
fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("a clock").as_secs_f64()
}

/// Notes again and again how much CPU time a cgroup has used.
struct Burning {
    stop: Sender<()>,
    /// When it was, and how many nanoseconds.
    notes: JoinHandle<Vec<(f64, f64)>>,
}

impl Burning {
    fn watch(file: PathBuf) -> Self {
        let (stop, stopped) = mpsc::channel();
        let notes = thread::spawn(move || {
            let mut notes = Vec::new();
            loop {
                let over = stopped.recv_timeout(Duration::from_millis(20)) != Err(RecvTimeoutError::Timeout);
                let used = fs::read_to_string(&file).expect("the cgroup is there");
                notes.push((now(), used.trim().parse().expect("a number")));
                if over {
                    return notes;
                }
            }
        });
        Self { stop, notes }
    }

    /// How many processors it kept busy from one time to another.
    #[track_caller]
    fn cores(self, from: f64, to: f64) -> f64 {
        drop(self.stop);
        let notes = self.notes.join().expect("notes");
        let at = |time: f64| {
            *notes
                .iter()
                .find(|(when, _)| *when >= time)
                .expect("it was watched")
        };
        let ((from, before), (to, after)) = (at(from), at(to));
        (after - before) / (to - from) / 1e9
    }
}

/// The labels of all series of a family, without those that Prometheus adds.
fn labels(prometheus: &Prometheus, family: &str) -> Vec<Value> {
    let mut all: Vec<Value> = prometheus
        .query(family)
        .into_iter()
        .map(|(mut labels, _)| {
            let own = labels.as_object_mut().expect("labels are an object");
            own.retain(|key, _| !matches!(key.as_str(), "__name__" | "instance" | "job"));
            labels
        })
        .collect();
    all.sort_by_key(|labels| labels["id"].to_string());
    all
}

/// The names of all series that have this id.
fn families(prometheus: &Prometheus, id: &str) -> BTreeSet<String> {
    let series = prometheus.query(&format!("{{id='{id}'}}"));
    series
        .iter()
        .filter_map(|(labels, _)| Some(labels["__name__"].as_str()?.to_owned()))
        .collect()
}

#[test]
fn prometheus_sees_what_real_containers_use() {
    const WINDOW: Duration = Duration::from_secs(7);
    for_each_containerd(|containerd| {
        let monitor = monitor(containerd);
        let prometheus = prometheus(&monitor);
        // A file that has just been written is no part of the working set, and the variable is.
        let script = "dd if=/dev/zero of=/tmp/x bs=1M count=24; x=$(head -c 6000000 /dev/zero | tr '\\0' a)
            while :; do :; done";
        let limits = [
            "--cpus",
            "0.2",
            "--cpu-shares",
            "512",
            "--memory-limit",
            "67108864",
        ];
        let plain = containerd.run_container(&limits, &["sh", "-c", script]);
        let (sandbox, child) = run_pod(
            containerd,
            &["--cpus", "0.4"],
            &["sh", "-c", "while :; do :; done"],
        );
        let used = |task: &Task| task.cgroup("memory", "memory.usage_in_bytes");
        eventually("it has its memory", || used(&plain) > 29 << 20);
        prometheus.eventually("up{job='node'} == 1", 1);
        prometheus.eventually("container_cpu_usage_seconds_total", 3);

        // What they burn, by their own cgroups, between two of Prometheus's scrapes.
        let held_back = || plain.cgroup_key("cpu", "cpu.stat", "nr_throttled");
        let held_back_before = held_back();
        let burning =
            [&plain, &child].map(|task| Burning::watch(task.cgroup_file("cpuacct", "cpuacct.usage")));
        let cpu = |task: &Task| format!("container_cpu_usage_seconds_total{{id='{}'}}", task.id);
        let scraped = || value(&prometheus, &format!("timestamp({})", cpu(&child)));
        let begin = now();
        eventually("it is scraped once more", || scraped() > begin);
        let from = scraped();
        thread::sleep(WINDOW);
        let to = scraped();
        let [plain_burns, child_burns] = burning.map(|burning| burning.cores(from, to));
        // All samples between the two, and both of them.
        let range = format!("[{:.0}ms] @ {to:.3}", (to - from) * 1e3 + 1.0);
        let rate = |task: &Task| value(&prometheus, &format!("rate({}{range})", cpu(task)));
        // As Kubernetes' own dashboards ask for a pod.
        let by_pod = format!(
            "sum by (namespace, pod) (rate(container_cpu_usage_seconds_total{{container!='', image!='', \
             namespace='shop'}}{range}))"
        );
        for (found, burns, quota) in [
            (rate(&plain), plain_burns, 0.2),
            (rate(&child), child_burns, 0.4),
            (value(&prometheus, &by_pod), child_burns, 0.4),
        ] {
            assert!(near(found, burns, 0.15), "{found}, and it burned {burns}");
            // A busy machine may not give it all of its quota; it gives it no more.
            assert!(found < quota * 1.15, "{found} of {quota}");
        }
        let idle = rate(&sandbox);
        assert!(idle < 0.02, "{idle}: the sandbox's own container sleeps");
        let throttled = format!("container_cpu_cfs_throttled_periods_total{{id='{}'}}", plain.id);
        let throttled = value(&prometheus, &throttled);
        let expected = held_back_before as f64..=held_back() as f64;
        assert!(
            expected.contains(&throttled),
            "{throttled} is not in {expected:?}"
        );

        let named = |id: &str| json!({"id": id, "name": id});
        let with = |mut labels: Value, more: &[(&str, &str)]| {
            for (key, value) in more {
                labels[*key] = json!(value);
            }
            labels
        };
        let pod = [("namespace", "shop"), ("pod", "web")];
        let app = [("container", "app"), ("image", "localhost/busybox:1")];
        let mut expected = [
            with(named(&plain.id), &[("containerd_namespace", "default")]),
            with(named(&sandbox.id), &pod),
            with(with(named(&child.id), &pod), &app),
        ];
        expected.sort_by_key(|labels| labels["id"].to_string());
        assert_eq!(labels(&prometheus, "container_memory_usage_bytes"), expected);
        let with_cpu = expected.map(|labels| with(labels, &[("cpu", "total")]));
        assert_eq!(labels(&prometheus, "container_cpu_usage_seconds_total"), with_cpu);
        for task in [&plain, &sandbox, &child] {
            let found = families(&prometheus, &task.id);
            for family in [
                "container_cpu_usage_seconds_total",
                "container_memory_usage_bytes",
                "container_memory_working_set_bytes",
                "container_memory_rss",
                "container_memory_cache",
                "container_memory_failcnt",
                "container_memory_failures_total",
                "container_memory_max_usage_bytes",
                "container_oom_events_total",
                "container_spec_memory_limit_bytes",
                "container_threads",
                "container_last_seen",
                "container_start_time_seconds",
                "kata_monitor_container_up",
            ] {
                assert!(
                    found.contains(family),
                    "{family} of {} is not in {found:?}",
                    task.id
                );
            }
        }

        // What sleeps may have used less than the kernel counts in, and a zero may as well be what was not reported.
        for task in [&plain, &child] {
            let found = families(&prometheus, &task.id);
            for family in [
                "container_cpu_user_seconds_total",
                "container_cpu_system_seconds_total",
            ] {
                assert!(
                    found.contains(family),
                    "{family} of {} is not in {found:?}",
                    task.id
                );
            }
        }

        // Memory, by the cgroups' own files. The kernel counts it in lots.
        let of = |family: &str, task: &Task| value(&prometheus, &format!("{family}{{id='{}'}}", task.id));
        for task in [&plain, &child] {
            let inactive = task.cgroup_key("memory", "memory.stat", "total_inactive_file");
            let set = of("container_memory_working_set_bytes", task);
            let expected = used(task).saturating_sub(inactive) as f64;
            assert!(
                (set - expected).abs() < f64::from(1 << 20),
                "{set}, not {expected}"
            );
            let usage = of("container_memory_usage_bytes", task);
            assert!((usage - used(task) as f64).abs() < f64::from(1 << 20), "{usage}");
        }
        assert_eq!(
            of("container_spec_memory_limit_bytes", &plain),
            f64::from(64 << 20)
        );
        assert_eq!(of("container_spec_memory_limit_bytes", &child), 0.0);
        for (family, file) in [
            ("container_spec_cpu_quota", "cpu.cfs_quota_us"),
            ("container_spec_cpu_period", "cpu.cfs_period_us"),
            ("container_spec_cpu_shares", "cpu.shares"),
        ] {
            let set = plain.cgroup("cpu", file);
            assert_eq!(of(family, &plain), set as f64, "{family}");
        }
        // What a container in a sandbox was created with may have changed since.
        for task in [&sandbox, &child] {
            assert!(!families(&prometheus, &task.id).contains("container_spec_cpu_quota"));
        }
        let age = now() - of("container_start_time_seconds", &plain);
        assert!((WINDOW.as_secs_f64()..600.0).contains(&age), "{age}");

        // The sandbox's own families beside them.
        let in_pod = format!("sandbox_id='{}',cri_name='web',cri_namespace='shop'", sandbox.id);
        for query in ["kata_monitor_sandbox_up", "kata_shim_threads", "kata_guest_load"] {
            let found = prometheus.query(&format!("{query}{{{in_pod}}}"));
            assert!(!found.is_empty(), "{query}");
        }
        assert_eq!(
            value(&prometheus, &format!("kata_monitor_sandbox_up{{{in_pod}}}")),
            1.0
        );
        monitor.scrape().check();
    });
}
