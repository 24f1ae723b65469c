//! A family of a container's page: its name, what it means, and where its samples come from.

use promtext::{FamilyWriter, Kind, Value};

use super::row::ContainerRow;

pub const COUNTER: Kind = Kind::Counter;
pub const GAUGE: Kind = Kind::Gauge;

/// A family, and where its samples come from.
pub struct ContainerFamily {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    pub write: fn(&ContainerRow<'_>, Sink<'_>),
}

pub const fn family(
    name: &'static str,
    kind: Kind,
    help: &'static str,
    write: fn(&ContainerRow<'_>, Sink<'_>),
) -> ContainerFamily {
    ContainerFamily {
        name,
        kind,
        help,
        write,
    }
}

/// Takes the samples of one family of one container.
pub struct Sink<'a>(pub FamilyWriter<'a>);

impl Sink<'_> {
    /// The only sample, where there is a value.
    pub fn one(self, value: Option<impl Into<Value>>) {
        self.labelled(&[], value);
    }

    /// The only sample, with labels.
    pub fn labelled(mut self, labels: &[(&str, &str)], value: Option<impl Into<Value>>) {
        self.put(labels, value);
    }

    /// One of several samples.
    pub fn put(&mut self, labels: &[(&str, &str)], value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.0.sample(labels, value);
        }
    }
}
