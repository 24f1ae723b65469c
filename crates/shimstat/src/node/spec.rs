//! The parts of a task's OCI spec (`config.json`) that are read here; all else in it is skipped.

use serde::Deserialize;

use super::annotations::Annotations;

/// What a task was created from.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Spec {
    pub annotations: Annotations,
    pub cpu: CpuSpec,
    /// The spec's `linux.cgroupsPath`.
    pub cgroups_path: Option<String>,
}

/// The spec's `linux.resources.cpu`, as far as it is set there: what the task was created with. A later change of its
/// limits is not written to its bundle.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct CpuSpec {
    /// CPU time that it may use in each period, in microseconds.
    pub quota: Option<u64>,
    /// In microseconds.
    pub period: Option<u64>,
    /// Its weight beside others, as in cgroup version 1: 2 to 262144.
    pub shares: Option<u64>,
}

impl CpuSpec {
    /// Nothing is set.
    pub const NONE: Self = Self {
        quota: None,
        period: None,
        shares: None,
    };
}

impl Spec {
    /// Reads a `config.json`.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        let file: File = serde_json::from_slice(json)?;
        let linux = file.linux.unwrap_or_default();
        let resources = linux.resources;
        let cpu = resources.and_then(|resources| resources.cpu).unwrap_or_default();
        let set = |value: Option<u64>| value.filter(|value| *value != 0);
        Ok(Self {
            annotations: file.annotations.unwrap_or_default(),
            // runc takes 0 as not set. A quota below it lifts the limit.
            cpu: CpuSpec {
                quota: set(cpu.quota.and_then(|quota| quota.try_into().ok())),
                period: set(cpu.period),
                shares: set(cpu.shares),
            },
            cgroups_path: linux.cgroups_path.filter(|path| !path.is_empty()),
        })
    }
}

/// As the file has it.
#[derive(Deserialize)]
struct File {
    annotations: Option<Annotations>,
    linux: Option<Linux>,
}

#[derive(Deserialize, Default)]
struct Linux {
    resources: Option<Resources>,
    #[serde(rename = "cgroupsPath")]
    cgroups_path: Option<String>,
}

#[derive(Deserialize)]
struct Resources {
    cpu: Option<Cpu>,
}

/// Numbers of the types that the OCI runtime specification gives them (`specs-go`'s `LinuxCPU`).
#[derive(Deserialize, Default)]
struct Cpu {
    quota: Option<i64>,
    period: Option<u64>,
    shares: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cpu(cpu: &str) -> CpuSpec {
        let json = format!(r#"{{"linux":{{"resources":{{"devices":[{{}}],"cpu":{cpu}}},"seccomp":{{}}}}}}"#);
        Spec::from_json(json.as_bytes()).unwrap().cpu
    }

    #[test]
    fn reads_what_is_set_of_the_cpu() {
        let all = CpuSpec {
            quota: Some(20_000),
            period: Some(100_000),
            shares: Some(512),
        };
        assert_eq!(
            cpu(r#"{"shares":512,"quota":20000,"period":100000,"cpus":"0-1"}"#),
            all
        );
        let no_quota = CpuSpec { quota: None, ..all };
        for quota in ["-1", "0", "null", "-9223372036854775808"] {
            let text = format!(r#"{{"shares":512,"quota":{quota},"period":100000}}"#);
            assert_eq!(cpu(&text), no_quota, "{quota}");
        }
        assert_eq!(cpu(r#"{"shares":0,"period":0}"#), CpuSpec::default());
    }

    #[test]
    fn nothing_is_set_where_the_spec_says_nothing() {
        assert_eq!(cpu("null"), CpuSpec::default());
        for json in [
            "{}",
            r#"{"linux":null,"annotations":null}"#,
            r#"{"linux":{"resources":null}}"#,
            r#"{"linux":{"resources":{}}}"#,
        ] {
            assert_eq!(
                Spec::from_json(json.as_bytes()).unwrap(),
                Spec::default(),
                "{json}"
            );
        }
    }

    #[test]
    fn reads_the_specs_of_a_recorded_kata_pod() {
        let sandbox = include_bytes!("../../tests/fixtures/kata-3.30-go/bundle-sandbox/config.json");
        let child = include_bytes!("../../tests/fixtures/kata-3.30-go/bundle-child/config.json");
        let cpu = |json: &[u8]| Spec::from_json(json).unwrap().cpu;
        let least = CpuSpec {
            shares: Some(2),
            ..CpuSpec::default()
        };
        let half = CpuSpec {
            quota: Some(50_000),
            period: Some(100_000),
            shares: None,
        };
        assert_eq!((cpu(sandbox), cpu(child)), (least, half));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Spec::from_json(&bytes);
        }
    }
}
