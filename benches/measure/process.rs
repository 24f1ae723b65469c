//! Whole processes: how long they take, and what they need.

use std::ffi::CString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{median, which};

/// Rounds before those that count.
const WARM_UP: usize = 5;

/// A program with its arguments, and what its runs took.
pub struct Program {
    pub name: &'static str,
    arguments: Vec<CString>,
    runs: Vec<Run>,
}

struct Run {
    wall: Duration,
    cpu: Duration,
    peak_kib: i64,
}

/// Runs each program once a round, in turn, so that a noisy machine is noisy for all; then says what they took.
pub fn in_turns(what: &str, rounds: usize, programs: &mut [Program]) {
    for round in 0..rounds + WARM_UP {
        for program in &mut *programs {
            let run = program.run();
            if round >= WARM_UP {
                program.runs.push(run);
            }
        }
    }
    println!("{what}, whole processes, {rounds} runs in turn:");
    println!(
        "  {:34} {:>9} {:>9} {:>9} {:>9}",
        "", "median ms", "least ms", "cpu ms", "peak MiB"
    );
    for program in programs {
        println!(
            "  {:34} {:9.2} {:9.2} {:9.2} {:9.1}",
            program.name,
            program.wall(),
            program.least(),
            program.cpu(),
            program.peak_mib()
        );
    }
}

impl Program {
    pub fn new(name: &'static str, arguments: &[&str]) -> Self {
        let program = if arguments[0].contains('/') {
            PathBuf::from(arguments[0])
        } else {
            which(arguments[0])
        };
        let mut arguments: Vec<_> = arguments.iter().map(|a| CString::new(*a).unwrap()).collect();
        arguments[0] = CString::new(program.to_str().unwrap()).unwrap();
        Self {
            name,
            arguments,
            runs: Vec::new(),
        }
    }

    /// Starts the program and waits for its end, its output thrown away.
    fn run(&self) -> Run {
        let mut argv: Vec<_> = self.arguments.iter().map(|a| a.as_ptr().cast_mut()).collect();
        argv.push(std::ptr::null_mut());
        // SAFETY: all pointers are to live, NUL-terminated strings and initialised structures.
        unsafe {
            let mut actions = std::mem::zeroed();
            libc::posix_spawn_file_actions_init(&mut actions);
            libc::posix_spawn_file_actions_addopen(&mut actions, 1, c"/dev/null".as_ptr(), libc::O_WRONLY, 0);
            let (mut pid, mut status, mut usage) = (0, 0, std::mem::zeroed::<libc::rusage>());
            let started = Instant::now();
            let spawned = libc::posix_spawn(
                &mut pid,
                argv[0],
                &actions,
                std::ptr::null(),
                argv.as_ptr(),
                environ,
            );
            assert_eq!(spawned, 0, "{} cannot be started", self.name);
            assert_eq!(libc::wait4(pid, &mut status, 0, &mut usage), pid);
            let wall = started.elapsed();
            libc::posix_spawn_file_actions_destroy(&mut actions);
            assert_eq!(status, 0, "{} failed", self.name);
            let time =
                |t: libc::timeval| Duration::from_micros(t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64);
            Run {
                wall,
                cpu: time(usage.ru_utime) + time(usage.ru_stime),
                peak_kib: usage.ru_maxrss,
            }
        }
    }

    /// Median wall time, in milliseconds.
    pub fn wall(&self) -> f64 {
        median(self.runs.iter().map(|r| r.wall.as_secs_f64() * 1e3))
    }

    /// The shortest wall time, in milliseconds.
    pub fn least(&self) -> f64 {
        let walls = self.runs.iter().map(|r| r.wall.as_secs_f64() * 1e3);
        walls.fold(f64::INFINITY, f64::min)
    }

    /// Median processor time, in milliseconds.
    pub fn cpu(&self) -> f64 {
        median(self.runs.iter().map(|r| r.cpu.as_secs_f64() * 1e3))
    }

    /// Median of the most that was resident, in MiB.
    pub fn peak_mib(&self) -> f64 {
        median(self.runs.iter().map(|r| r.peak_kib as f64 / 1024.0))
    }

    /// How many times as long as another it takes: by the medians, and by the shortest.
    pub fn to(&self, other: &Self) -> String {
        format!(
            "{:.2} (least {:.2})",
            self.wall() / other.wall(),
            self.least() / other.least()
        )
    }
}

unsafe extern "C" {
    static environ: *const *mut libc::c_char;
}
