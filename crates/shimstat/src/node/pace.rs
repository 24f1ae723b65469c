//! What an answer costs the node, by who gives it, and how often it is worth that.
//!
//! The figures were measured on machines of two cores. They put the answerers in order of magnitude; on another machine
//! they are others.

use std::time::Duration;

/// Who answers for a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answerer {
    /// runc's shim, whichever OCI runtime it calls: it reads the container's cgroup.
    RuncShim,
    /// Kata's shims: they ask the agent in the guest.
    KataShim,
    /// gVisor's shim: it starts `runsc state` for each `State` and `runsc events --stats` for each `Stats`
    /// ([pkg/shim/v1/runsccmd/runsc.go](https://github.com/google/gvisor/blob/master/pkg/shim/v1/runsccmd/runsc.go)).
    GvisorShim,
    /// A gVisor sandbox on its control socket: one call, no process.
    GvisorSandbox,
    /// Nobody: the kernel's files are read.
    Kernel,
    /// A shim that was not measured.
    OtherShim,
}

/// What a sample costs: a container's state and its statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Processor time on the answering side; `None` where it was not measured.
    pub cpu: Option<Duration>,
    /// How many processes are started for it.
    pub forks: u32,
    /// The least time between two samples of one container, unless somebody asks for less.
    pub least_interval: Duration,
}

/// For an answerer that starts processes: 20 containers then cost 5 % of a core.
const FORKING_INTERVAL: Duration = Duration::from_secs(10);

impl Answerer {
    /// The shim of a runtime, by the name that [`Runtime`](super::Runtime) has for it.
    pub fn shim_of(runtime: &str) -> Self {
        match runtime {
            "runc" | "crun" | "youki" => Self::RuncShim,
            "kata" => Self::KataShim,
            "gvisor" => Self::GvisorShim,
            _ => Self::OtherShim,
        }
    }

    /// What one sample costs.
    pub const fn cost(self) -> Cost {
        let (cpu, forks) = match self {
            Self::RuncShim => (Some(Duration::from_micros(1300)), 0),
            // Measured under software emulation alone, which says nothing of a real guest.
            Self::KataShim => (None, 0),
            Self::GvisorShim => (Some(Duration::from_millis(22)), 2),
            // One call over a kept connection; 0.29 ms over a new one.
            Self::GvisorSandbox => (Some(Duration::from_micros(130)), 0),
            // All of it is the asker's own time.
            Self::Kernel => (Some(Duration::ZERO), 0),
            Self::OtherShim => (None, 0),
        };
        Cost {
            cpu,
            forks,
            least_interval: if forks > 0 {
                FORKING_INTERVAL
            } else {
                Duration::ZERO
            },
        }
    }
}

/// How often containers may be asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// The least interval for all, in the place of what each answerer's cost suggests.
    pub least_interval: Option<Duration>,
}

impl Pace {
    /// The interval at which a container is asked by somebody who wants an answer every `wanted`.
    pub fn interval(&self, answerer: Answerer, wanted: Duration) -> Duration {
        wanted.max(self.least_interval.unwrap_or(answerer.cost().least_interval))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_forks_is_asked_seldom_unless_told_otherwise() {
        let pace = Pace::default();
        assert_eq!(pace.interval(Answerer::GvisorShim, 2 * SECOND), 10 * SECOND);
        assert_eq!(pace.interval(Answerer::GvisorShim, 30 * SECOND), 30 * SECOND);
        for answerer in [
            Answerer::RuncShim,
            Answerer::KataShim,
            Answerer::GvisorSandbox,
            Answerer::OtherShim,
        ] {
            assert_eq!(pace.interval(answerer, SECOND / 2), SECOND / 2, "{answerer:?}");
        }
        let hasty = Pace {
            least_interval: Some(Duration::ZERO),
        };
        assert_eq!(hasty.interval(Answerer::GvisorShim, 2 * SECOND), 2 * SECOND);
        let patient = Pace {
            least_interval: Some(60 * SECOND),
        };
        assert_eq!(patient.interval(Answerer::RuncShim, 2 * SECOND), 60 * SECOND);
    }

    #[test]
    fn the_interval_keeps_a_forking_shims_cost_low() {
        let Cost {
            cpu,
            forks,
            least_interval,
        } = Answerer::GvisorShim.cost();
        assert_eq!(forks, 2);
        // 20 containers: at most 5 % of a core, where a sample every 2 s takes 22 %.
        let share = 20.0 * cpu.unwrap().as_secs_f64() / least_interval.as_secs_f64();
        assert!(share < 0.05, "{share}");
    }

    #[test]
    fn a_runtimes_shim_is_known_by_its_name() {
        for (name, expected) in [
            ("runc", Answerer::RuncShim),
            ("crun", Answerer::RuncShim),
            ("kata", Answerer::KataShim),
            ("gvisor", Answerer::GvisorShim),
            // runsc under runc's shim, as Docker has it: an OCI runtime like any other, but its name is not known.
            ("runsc", Answerer::OtherShim),
            ("", Answerer::OtherShim),
        ] {
            assert_eq!(Answerer::shim_of(name), expected, "{name}");
        }
    }
}
