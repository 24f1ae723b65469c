//! Which columns are shown, and how rows are sorted, where the user says so.

use std::cmp::Ordering;

use super::field::{Facts, Field};

/// A name that is no column's.
#[derive(Debug, thiserror::Error)]
#[error("there is no column {name:?}; there are {known}")]
pub struct UnknownColumn {
    name: String,
    known: String,
}

/// The column that a user means: by its heading, in any case, with a dash or an underscore for a blank.
fn find(known: &[&'static Field], name: &str) -> Result<&'static Field, UnknownColumn> {
    let wanted = as_typed(name.trim());
    known
        .iter()
        .copied()
        .find(|field| as_typed(field.heading) == wanted)
        .ok_or_else(|| UnknownColumn {
            name: name.to_string(),
            known: known
                .iter()
                .map(|field| as_typed(field.heading))
                .collect::<Vec<_>>()
                .join(", "),
        })
}

/// What a user has chosen of the columns of a table.
pub struct Chosen {
    /// `None` for the usual ones.
    pub columns: Option<Vec<&'static Field>>,
    pub order: Option<Order>,
}

impl Chosen {
    pub fn parse(
        known: &[&'static Field],
        columns: &[String],
        order: Option<&str>,
    ) -> Result<Self, UnknownColumn> {
        let columns = (!columns.is_empty()).then(|| columns.iter().map(|name| find(known, name)).collect());
        Ok(Self {
            columns: columns.transpose()?,
            order: order.map(|order| Order::parse(known, order)).transpose()?,
        })
    }
}

fn as_typed(heading: &str) -> String {
    heading.to_lowercase().replace([' ', '_'], "-")
}

/// An order of rows.
#[derive(Clone, Copy)]
pub struct Order {
    by: &'static Field,
    descending: bool,
}

impl Order {
    /// By a column, or by the one after a `-`, with the largest first, as `ps --sort` has it.
    pub fn parse(known: &[&'static Field], text: &str) -> Result<Self, UnknownColumn> {
        let (name, descending) = match text.strip_prefix('-') {
            Some(name) => (name, true),
            None => (text.strip_prefix('+').unwrap_or(text), false),
        };
        Ok(Self {
            by: find(known, name)?,
            descending,
        })
    }

    /// What is not known comes last.
    pub fn compare(&self, a: &Facts, b: &Facts) -> Ordering {
        let order = match (self.by.of(a), self.by.of(b)) {
            (Some(a), Some(b)) => self.directed(a.total_cmp(&b)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => match (self.by.text_of(a), self.by.text_of(b)) {
                (Some(a), Some(b)) => self.directed(a.cmp(&b)),
                (a, b) => b.is_some().cmp(&a.is_some()),
            },
        };
        order.then_with(|| a.id.cmp(b.id))
    }

    fn directed(&self, order: Ordering) -> Ordering {
        if self.descending { order.reverse() } else { order }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::container;
    use crate::show::fields;
    use shimstat::node::{PodNames, Role};

    #[test]
    fn columns_are_named_as_people_type_headings() {
        for name in ["POD UID", "pod-uid", "Pod_Uid", " pod uid "] {
            assert_eq!(find(&fields::WIDE, name).unwrap().heading, "POD UID");
        }
        let unknown = find(&fields::WIDE, "cpu").err().unwrap().to_string();
        assert_eq!(
            unknown,
            "there is no column \"cpu\"; there are namespace, pod-uid, shim"
        );
    }

    #[test]
    fn rows_are_sorted_by_number_or_text_and_what_is_not_known_comes_last() {
        let containers: Vec<_> = ["a", "b", "c"]
            .map(|id| container(id, Role::Plain, PodNames::NONE))
            .into();
        let pids = [Some(20), None, Some(3)];
        let facts = || {
            containers.iter().zip(pids).map(|(container, pid)| Facts {
                pid,
                ..Facts::of(container)
            })
        };
        let sorted = |by: &str| {
            let order = Order::parse(&fields::LIST, by).unwrap();
            let mut facts: Vec<_> = facts().collect();
            facts.sort_by(|a, b| order.compare(a, b));
            facts.iter().map(|facts| facts.id).collect::<String>()
        };
        assert_eq!(sorted("pid"), "cab");
        assert_eq!(sorted("-pid"), "acb");
        assert_eq!(sorted("-id"), "cba");
        assert_eq!(sorted("+id"), "abc");
    }
}
