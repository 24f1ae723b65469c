//! Every property of containers that is shown in a column, once: `list`, `events --format table` and `top` choose from
//! these. To add a column, add an entry here and name it in the list of each view that should have it.

use std::time::Duration;

use shimstat::node::Runtime;

use super::field::{Field, Mark, Narrow, Sum};
use super::name::short_id;
use super::units::Unit;

/// The columns of `list`.
pub static LIST: [&Field; 7] = [&ID, &POD, &CONTAINER, &RUNTIME, &STATUS, &PID, &AGE];

/// The additional columns of `list --format wide`.
pub static WIDE: [&Field; 3] = [&NAMESPACE, &POD_UID, &SHIM];

/// More of them, where a guest tells something.
pub static GUEST: [&Field; 4] = [&AGENT, &GUEST_MEMORY, &GUEST_NETWORK, &GUEST_DISK];

/// The columns of `events --format table` after the name. Several fields can share one.
pub static EVENTS: [&[&Field]; 7] = [
    &[&CPU],
    &[&MEMORY, &LIMIT],
    &[&PIDS],
    &[&RX],
    &[&TX],
    &[&READ],
    &[&WRITE],
];

/// All that can be told of a container's statistics: the columns of `events --format wide`.
pub static STATISTICS: [&Field; 11] = [
    &CPU, &MEMORY, &LIMIT, &OF_LIMIT, &RX, &TX, &READ, &WRITE, &PIDS, &THROTTLED, &OOM_KILLS,
];

/// Which container it is, for programs.
pub static IDENTITY: [&Field; 4] = [&FULL_ID, &NAMESPACE, &POD, &CONTAINER];

/// The columns of `top` after the name. If there is no room for all, the last are left out.
pub static TOP: [&Field; 10] = [
    &CPU, &MEMORY, &OF_LIMIT, &RX, &TX, &READ, &WRITE, &PIDS, &THROTTLED, &OOM_KILLS,
];

pub static ID: Field = Field::text("ID", |facts| Some(short_id(facts.id).to_string()));

/// Replaces [`ID`] with `list --no-trunc`.
pub static FULL_ID: Field = Field::text("ID", |facts| Some(facts.id.to_string()));

static POD: Field = Field::text("POD", |facts| facts.names.pod());

static CONTAINER: Field = Field::text("CONTAINER", |facts| {
    let names = facts.container?.names();
    // A container in no pod may have a name of its own.
    names.container.clone().or_else(|| names.own.clone())
});

static RUNTIME: Field = Field::text("RUNTIME", |facts| facts.runtime.map(Runtime::to_string));

static STATUS: Field = Field::text("STATUS", |facts| {
    Some(match (facts.status?, facts.exit_status) {
        (word, Some(status)) => format!("{word} ({status})"),
        (word, None) => word.to_string(),
    })
});

static PID: Field = Field::number("PID", Unit::Count, |facts| facts.pid.map(f64::from));

static AGE: Field = Field::number("AGE", Unit::Age, |facts| {
    facts.age.as_ref().map(Duration::as_secs_f64)
});

pub static NAMESPACE: Field = Field::text("NAMESPACE", |facts| Some(facts.namespace.to_string()));

static POD_UID: Field = Field::text("POD UID", |facts| facts.names.uid.clone());

static SHIM: Field = Field::text("SHIM", |facts| {
    Some(facts.container?.endpoint()?.address.to_string())
});

static AGENT: Field = Field::text("AGENT", |facts| Some(facts.guest?.version.clone()));

static GUEST_MEMORY: Field = Field::text("GUEST MEMORY", |facts| Some(facts.guest?.memory?.show()));

static GUEST_NETWORK: Field = Field::text("GUEST NETWORK", |facts| {
    let interfaces: Vec<_> = facts.guest?.interfaces().collect();
    (!interfaces.is_empty()).then(|| interfaces.join(", "))
});

/// The fullest filesystem of the guest, by bytes or inodes.
static GUEST_DISK: Field = Field::text("FULLEST IN GUEST", |facts| {
    let known = facts.guest?.filesystems.iter();
    let shares = known.filter_map(|filesystem| Some((filesystem.share()?, filesystem)));
    let (share, fullest) = shares.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    Some(format!("{}, {}", fullest.show(), Unit::Share.show(share)))
});

pub static CPU: Field = Field::number("CPU", Unit::Percent, |facts| facts.rates?.cpu_percent)
    .in_top(Narrow::new("CPU%", 5, "100 is one processor kept busy").sorted_by('c'));

pub static MEMORY: Field = Field::number("MEMORY", Unit::Bytes, |facts| {
    float(facts.sample?.stats.memory.working_set())
})
.in_top(Narrow::new("MEM", 5, "working set: memory that cannot be reclaimed at once").sorted_by('m'));

pub static LIMIT: Field = Field::number("LIMIT", Unit::Bytes, |facts| {
    float(facts.sample?.stats.memory.limit())
})
.of_pod(Sum::OfMembers);

static OF_LIMIT: Field =
    Field::share("OF LIMIT", &MEMORY, &LIMIT).in_top(Narrow::new("OF LIMIT", 8, "share of its memory limit"));

pub static RX: Field = Field::number("NET IN", Unit::BytesPerSecond, |facts| facts.rates?.rx_bytes)
    .of_pod(Sum::Largest)
    .in_top(
        Narrow::new(
            "RX/s",
            5,
            "bytes received per second; a pod's containers share its network",
        )
        .shared_in_pod()
        .sorted_with('n', &TX),
    );

pub static TX: Field = Field::number("NET OUT", Unit::BytesPerSecond, |facts| facts.rates?.tx_bytes)
    .of_pod(Sum::Largest)
    .in_top(
        Narrow::new(
            "TX/s",
            5,
            "bytes sent per second; none are shown for the host's network",
        )
        .shared_in_pod(),
    );

pub static READ: Field = Field::number("DISK READ", Unit::BytesPerSecond, |facts| facts.rates?.read_bytes)
    .of_pod(Sum::OfKnown)
    .in_top(Narrow::new("RD/s", 5, "bytes read from block devices per second").sorted_with('b', &WRITE));

pub static WRITE: Field = Field::number("DISK WRITE", Unit::BytesPerSecond, |facts| {
    facts.rates?.write_bytes
})
.of_pod(Sum::OfKnown)
.in_top(Narrow::new(
    "WR/s",
    5,
    "bytes written to block devices per second",
));

pub static PIDS: Field = Field::number("PIDS", Unit::Count, |facts| {
    float(facts.sample?.stats.pids.current)
})
.in_top(Narrow::new("PIDS", 5, "processes and threads").sorted_by('p'));

pub static THROTTLED: Field = Field::number("THROTTLED", Unit::Share, |facts| facts.rates?.throttled)
    .of_pod(Sum::Largest)
    .in_top(
        Narrow::new(
            "THR%",
            4,
            "share of the periods in which a CPU quota throttled it",
        )
        .marked_from(0.005, Mark::Warning),
    );

pub static OOM_KILLS: Field = Field::number("OOM KILLS", Unit::Count, |facts| {
    float(facts.sample?.stats.memory.oom_kill)
})
.of_pod(Sum::OfKnown)
.in_top(Narrow::new("OOM", 4, "processes OOM-killed since it started").marked_from(1.0, Mark::Alarm));

fn float(number: Option<u64>) -> Option<f64> {
    number.map(|number| number as f64)
}

/// The field of `top` that a key sorts by.
pub fn sorted_by(key: char) -> Option<&'static Field> {
    let has_key = |field: &&Field| {
        field
            .top
            .and_then(|top| top.sort)
            .is_some_and(|sort| sort.key == key)
    };
    TOP.into_iter().find(has_key)
}
