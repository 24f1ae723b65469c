//! What a field is: a property of a container or pod that can be a column in several views.

use std::time::Duration;

use shimstat::node::{Container, PodNames, Runtime};
use shimstat::rates::Rates;
use shimstat::survey::Sample;

use super::units::Unit;
use crate::guest_side::GuestSide;

/// A property that can be shown in a column.
#[derive(Clone, Copy)]
pub struct Field {
    pub heading: &'static str,
    pub value: Value,
    sum: Sum,
    /// How `top` shows it, if it does.
    pub top: Option<Narrow>,
}

/// Where a field's value comes from. `None` is shown as `-`.
#[derive(Clone, Copy)]
pub enum Value {
    /// Untrusted text.
    Text(fn(&Facts) -> Option<String>),
    Number(Unit, fn(&Facts) -> Option<f64>),
    /// The first number as a share of the second.
    Share(&'static Field, &'static Field),
}

/// How a pod's number is computed from those of its running containers, including the sandbox's own.
#[derive(Clone, Copy)]
pub enum Sum {
    /// Their sum, if all of them have the number.
    OfAll,
    /// The same without the sandbox's own container, if there are others: it does nothing, and needs no limit.
    OfMembers,
    /// The sum of those that have it: the kernel counts it only once there is something to count.
    OfKnown,
    /// The largest: they share what it counts, or the worst one matters.
    Largest,
}

/// What is known about a container, or about a sandbox that has no bundle of its own.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    pub id: &'a str,
    /// containerd's.
    pub namespace: &'a str,
    pub names: &'a PodNames,
    pub container: Option<&'a Container>,
    pub runtime: Option<&'a Runtime>,
    pub status: Option<&'a str>,
    pub exit_status: Option<u32>,
    pub pid: Option<u32>,
    pub age: Option<Duration>,
    pub sample: Option<&'a Sample>,
    pub rates: Option<&'a Rates>,
    /// Of a sandbox.
    pub guest: Option<&'a GuestSide>,
}

impl<'a> Facts<'a> {
    /// What a container's bundle says.
    pub fn of(container: &'a Container) -> Self {
        Self {
            container: Some(container),
            ..Self::of_sandbox(container.id(), container)
        }
    }

    /// What a container in a sandbox says about the sandbox.
    pub fn of_sandbox(id: &'a str, container: &'a Container) -> Self {
        Self {
            id,
            namespace: &container.bundle.namespace,
            names: container.names(),
            container: None,
            runtime: None,
            status: None,
            exit_status: None,
            pid: None,
            age: None,
            sample: None,
            rates: None,
            guest: None,
        }
    }
}

impl Field {
    pub const fn text(heading: &'static str, of: fn(&Facts) -> Option<String>) -> Self {
        Self::new(heading, Value::Text(of))
    }

    pub const fn number(heading: &'static str, unit: Unit, of: fn(&Facts) -> Option<f64>) -> Self {
        Self::new(heading, Value::Number(unit, of))
    }

    pub const fn share(heading: &'static str, part: &'static Self, whole: &'static Self) -> Self {
        Self::new(heading, Value::Share(part, whole))
    }

    const fn new(heading: &'static str, value: Value) -> Self {
        Self {
            heading,
            value,
            sum: Sum::OfAll,
            top: None,
        }
    }

    pub const fn of_pod(mut self, sum: Sum) -> Self {
        self.sum = sum;
        self
    }

    pub const fn in_top(mut self, column: Narrow) -> Self {
        self.top = Some(column);
        self
    }

    /// The text for a wide table. Untrusted text.
    /// Its text, where it is one.
    pub fn text_of(&self, facts: &Facts) -> Option<String> {
        match self.value {
            Value::Text(of) => of(facts),
            Value::Number(..) | Value::Share(..) => None,
        }
    }

    /// Its text without a unit, for programs: a number in full. The [`key`](Self::key) names the unit.
    pub fn plain(&self, facts: &Facts) -> Option<String> {
        match self.value {
            Value::Text(of) => of(facts),
            Value::Number(..) | Value::Share(..) => self.of(facts).map(|number| number.to_string()),
        }
    }

    /// Its name for programs, with the unit of [`plain`](Self::plain): `pod`, `memory_bytes`.
    pub fn key(&self) -> String {
        let unit = match self.value {
            Value::Text(_) => "",
            Value::Number(unit, _) => unit.suffix(),
            Value::Share(..) => Unit::Share.suffix(),
        };
        format!("{}{unit}", self.heading.to_lowercase().replace(' ', "_"))
    }

    pub fn show(&self, facts: &Facts) -> String {
        let shown = match self.value {
            Value::Text(of) => of(facts),
            Value::Number(unit, _) => self.of(facts).map(|number| unit.show(number)),
            Value::Share(..) => self.of(facts).map(|share| Unit::Share.show(share)),
        };
        shown.unwrap_or_else(|| "-".to_string())
    }

    /// The number, if the field is one.
    pub fn of(&self, facts: &Facts) -> Option<f64> {
        match self.value {
            Value::Text(_) => None,
            Value::Number(_, of) => of(facts),
            Value::Share(part, whole) => share(part.of(facts), whole.of(facts)),
        }
    }

    /// A pod's number, from those of its containers that run: the sandbox's own, and the others.
    pub fn of_all_in_pod(&self, sandbox: Option<&Facts>, members: &[Facts]) -> Option<f64> {
        if let Value::Share(part, whole) = self.value {
            return share(
                part.of_all_in_pod(sandbox, members),
                whole.of_all_in_pod(sandbox, members),
            );
        }
        let sandbox = match self.sum {
            Sum::OfMembers if !members.is_empty() => None,
            _ => sandbox,
        };
        let mut numbers = sandbox
            .into_iter()
            .chain(members)
            .map(|facts| self.of(facts))
            .peekable();
        numbers.peek()?;
        match self.sum {
            Sum::OfAll | Sum::OfMembers => numbers.sum(),
            Sum::OfKnown => numbers.flatten().reduce(|a, b| a + b),
            Sum::Largest => numbers.flatten().reduce(f64::max),
        }
    }
}

fn share(part: Option<f64>, whole: Option<f64>) -> Option<f64> {
    Some(part? / whole.filter(|whole| *whole > 0.0)?)
}

/// A column of `top`.
#[derive(Clone, Copy)]
pub struct Narrow {
    pub heading: &'static str,
    pub width: u16,
    /// Its line in the help.
    pub about: &'static str,
    pub sort: Option<SortKey>,
    /// The number from which on it stands out.
    pub mark: Option<(f64, Mark)>,
    /// Whether it is shown for the pod only, and not for each of its containers.
    pub shared_in_pod: bool,
}

/// The key that sorts by a column.
#[derive(Clone, Copy)]
pub struct SortKey {
    pub key: char,
    /// A number that is added to the column's own for sorting.
    pub with: Option<&'static Field>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Warning,
    Alarm,
}

impl Narrow {
    pub const fn new(heading: &'static str, width: u16, about: &'static str) -> Self {
        Self {
            heading,
            width,
            about,
            sort: None,
            mark: None,
            shared_in_pod: false,
        }
    }

    pub const fn sorted_by(mut self, key: char) -> Self {
        self.sort = Some(SortKey { key, with: None });
        self
    }

    pub const fn sorted_with(mut self, key: char, other: &'static Field) -> Self {
        self.sort = Some(SortKey {
            key,
            with: Some(other),
        });
        self
    }

    pub const fn marked_from(mut self, number: f64, mark: Mark) -> Self {
        self.mark = Some((number, mark));
        self
    }

    pub const fn shared_in_pod(mut self) -> Self {
        self.shared_in_pod = true;
        self
    }
}
