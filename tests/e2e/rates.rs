//! The rates in the table, beside what containers of known behaviour did.

use std::io::Write;
use std::net::TcpListener;
use std::os::linux::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{Running, Task, for_each_containerd};
use crate::wire::wire;

const INTERVAL: Duration = Duration::from_millis(500);

/// A stream of a table's rows, as cells.
struct Rows(Running);

impl Rows {
    fn of(state: &str, task: &Task) -> Self {
        let arguments = [
            "--state",
            state,
            "events",
            "--format",
            "table",
            "--interval",
            "500ms",
            &task.id,
        ];
        let mut stream = Running::start(&arguments);
        assert!(stream.line().expect("a header").starts_with("CONTAINER "));
        Self(stream)
    }

    fn row(&mut self) -> Vec<String> {
        let line = self.0.line().expect("a row");
        line.split("  ")
            .map(|cell| cell.trim().to_string())
            .filter(|cell| !cell.is_empty())
            .collect()
    }

    /// Adds up a column of rates over some rows: how much that was. A rate is that of an interval.
    fn total(&mut self, column: usize, rows: usize) -> f64 {
        (0..rows)
            .map(|_| bytes(&self.row()[column]) * INTERVAL.as_secs_f64())
            .sum()
    }
}

/// Reads `1.5MiB/s`; nothing that can be told is nothing.
fn bytes(rate: &str) -> f64 {
    if rate == "-" {
        return 0.0;
    }
    let rate = rate.strip_suffix("/s").expect("a rate");
    let digits = rate.find(|c: char| c.is_ascii_alphabetic()).expect("a unit");
    let (number, unit) = rate.split_at(digits);
    let factor = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        other => panic!("{other}"),
    };
    number.parse::<f64>().expect("a number") * f64::from(1 << factor)
}

pub fn near(found: f64, expected: f64, tolerance: f64) -> bool {
    (found - expected).abs() <= expected * tolerance
}

#[test]
fn a_busy_loop_under_a_quota_uses_its_quota() {
    for_each_containerd(|containerd| {
        let task = containerd.run_container(&["--cpus", "0.5"], &["sh", "-c", "while :; do :; done"]);
        let mut rows = Rows::of(&containerd.state(), &task);
        assert_eq!(rows.row()[1], "-", "one sample has no rate");
        let burned = || task.cpu_time();
        let (before, begin) = (burned(), Instant::now());
        let shown: Vec<f64> = (0..8)
            .map(|_| {
                rows.row()[1]
                    .strip_suffix('%')
                    .expect("per cent")
                    .parse()
                    .expect("a number")
            })
            .collect();
        let percent = (burned() - before) as f64 / begin.elapsed().as_nanos() as f64 * 100.0;
        let mean = shown.iter().sum::<f64>() / shown.len() as f64;
        assert!(near(mean, percent, 0.08), "{shown:?}, and it burned {percent}");
        // A busy machine may not give it all of its quota; it gives it no more.
        assert!((5.0..56.0).contains(&mean), "{shown:?}");
    });
}

#[test]
fn a_download_is_as_fast_as_it_was_sent() {
    const SENT: usize = 24 << 20;
    for_each_containerd(|containerd| {
        // An address of this process's own, as other tests may run beside it.
        let net = format!("169.254.{}", std::process::id() % 250 + 1);
        let (host, guest) = (format!("{net}.1"), format!("{net}.2"));
        let fetch = format!("until nc {host} 9000 >/dev/null; do sleep 0.1; done; sleep 1000");
        let task = containerd.run_container(&[], &["sh", "-c", &fetch]);
        let mut rows = Rows::of(&containerd.state(), &task);
        wire(&task, &host, &guest);
        let server = TcpListener::bind((host.as_str(), 9000)).expect("the address is ours");
        // Two rows with the new interface in them, before anything is sent over it.
        for _ in 0..4 {
            rows.row();
        }
        let sender = std::thread::spawn(move || {
            let (mut client, _) = server.accept().expect("a client");
            for _ in 0..24 {
                client.write_all(&vec![b'x'; SENT / 24]).expect("it takes it");
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let received = rows.total(4, 8);
        sender.join().unwrap();
        // Headers, and what is sent back, are a few per cent.
        assert!(near(received, SENT as f64, 0.1), "{received} of {SENT}");
    });
}

/// The disk that a directory is on, as `major:minor`; `None` where it is on none (a tmpfs, a network).
fn disk_of(directory: &Path) -> Option<String> {
    let device = std::fs::metadata(directory).expect("it is there").st_dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    let entry = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let disk = if entry.join("partition").exists() {
        entry.parent()?
    } else {
        &entry
    };
    Some(std::fs::read_to_string(disk.join("dev")).ok()?.trim().to_string())
}

#[test]
fn what_is_written_to_a_disk_is_what_was_written() {
    test_needs::needs!("root");
    const WRITTEN: usize = 48 << 20;
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let Some(disk) = disk_of(directory.path()) else {
        eprintln!("SKIPPED: {} is on no disk", directory.path().display());
        return;
    };
    for_each_containerd(|containerd| {
        let script = "sleep 3; dd if=/dev/zero of=/disk/data bs=1M oflag=direct count=48; sleep 1000";
        let mount = format!(
            "type=bind,src={},dst=/disk,options=rbind:rw",
            directory.path().display()
        );
        let task = containerd.run_container(&["--mount", &mount], &["sh", "-c", script]);
        // The kernel counts for the disks that a rule is about; this one holds nothing back.
        task.set_cgroup(
            "blkio",
            "blkio.throttle.write_bps_device",
            &format!("{disk} {}", 1_u64 << 40),
        );
        let mut rows = Rows::of(&containerd.state(), &task);
        rows.row();
        let written = rows.total(7, 12);
        let counted = task.cgroup_text("blkio", "blkio.throttle.io_service_bytes_recursive");
        assert!(
            near(written, WRITTEN as f64, 0.1),
            "{written} of {WRITTEN}; {counted}"
        );
    });
}
