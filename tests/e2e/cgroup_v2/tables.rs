//! The tables of docs/cgroup-v2.md: which number is which of the kernel's, and what is known to differ.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

const PAGE: &str = include_str!("../../../docs/cgroup-v2.md");

/// Numbers by their names. What is unlimited is infinite.
pub type Numbers = BTreeMap<String, f64>;

/// A cell such as `` `memory.current` − `memory.stat inactive_file` ÷ `memory.max` ``, computed from left to right.
#[derive(Debug)]
struct Expression {
    /// The operator before each operand, and the operand: a name, or a number.
    terms: Vec<(char, String)>,
    /// What the cell ends with.
    unlimited_is_zero: bool,
    rounded_down: bool,
}

impl Expression {
    fn parse(cell: &str) -> Self {
        let (sum, end) = cell.split_once(", ").unwrap_or((cell, ""));
        let put = |terms: &mut Vec<(char, String)>, word: &str| match terms.last_mut() {
            Some((_, name)) if name.is_empty() => name.push_str(word),
            _ => terms.push(('+', word.to_owned())),
        };
        let mut terms = Vec::new();
        // What is between backticks is every other piece.
        for (index, piece) in sum.split('`').enumerate() {
            if index % 2 == 1 {
                put(&mut terms, piece);
                continue;
            }
            for word in piece.split_whitespace() {
                match word.chars().next() {
                    Some(sign @ ('+' | '−' | '×' | '÷')) => terms.push((sign, String::new())),
                    _ => put(&mut terms, word),
                }
            }
        }
        assert!(!terms.is_empty(), "no names in {cell}");
        let [unlimited_is_zero, rounded_down] = ["0 for none", "rounded down"].map(|known| known == end);
        assert!(end.is_empty() || unlimited_is_zero || rounded_down, "{cell}");
        Self {
            terms,
            unlimited_is_zero,
            rounded_down,
        }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let names = self.terms.iter().map(|(_, name)| name.as_str());
        names.filter(|name| name.parse::<f64>().is_err())
    }

    /// `None` where one of the numbers is not there.
    fn value(&self, star: &str, numbers: &Numbers) -> Option<f64> {
        let mut value = 0.0;
        for (operator, name) in &self.terms {
            let operand = name
                .parse()
                .ok()
                .or_else(|| numbers.get(&name.replace('*', star)).copied())?;
            match operator {
                '−' => value -= operand,
                '×' => value *= operand,
                '÷' => value /= operand,
                _ => value += operand,
            }
        }
        if self.unlimited_is_zero && value.is_infinite() {
            return Some(0.0);
        }
        Some(if self.rounded_down { value.floor() } else { value })
    }
}

/// What a `*` stands for in a name, if it is of that pattern. In the name of a file it has no dots.
fn star(pattern: &str, name: &str) -> Option<String> {
    let Some((before, after)) = pattern.split_once('*') else {
        return (pattern == name).then(String::new);
    };
    let star = name.strip_prefix(before)?.strip_suffix(after)?;
    let in_file_name = !before.contains(' ') && after.contains('.');
    (!in_file_name || !star.contains('.')).then(|| star.to_owned())
}

/// Whether one of the patterns of a cell fits. A `*` is any text there.
fn fits(cell: &str, name: &str) -> bool {
    let fits = |pattern: &str| {
        let mut pieces = pattern.split('*');
        let first = pieces.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        let Some(last) = pattern
            .contains('*')
            .then(|| pieces.next_back().unwrap_or_default())
        else {
            return rest.is_empty();
        };
        for piece in pieces {
            match rest.split_once(piece) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        rest.ends_with(last)
    };
    cell.split('`').skip(1).step_by(2).any(fits)
}

struct Field {
    kernel: Expression,
    /// By who says it.
    said: BTreeMap<&'static str, Expression>,
}

struct Difference {
    who: &'static str,
    place: &'static str,
    number: &'static str,
    used: Cell<bool>,
}

/// The page.
pub struct Tables {
    fields: Vec<Field>,
    differences: Vec<Difference>,
    not_shown: Vec<&'static str>,
}

impl Tables {
    pub fn read() -> Self {
        let mut tables = Self {
            fields: Vec::new(),
            differences: Vec::new(),
            not_shown: Vec::new(),
        };
        let mut heading: Option<Vec<&'static str>> = None;
        for line in PAGE.lines() {
            let Some(row) = line.strip_prefix('|').and_then(|row| row.strip_suffix('|')) else {
                heading = None;
                continue;
            };
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            match &heading {
                None => heading = Some(cells),
                Some(_) if row.starts_with("---") => {}
                Some(heading) => tables.row(heading, &cells),
            }
        }
        assert!(tables.fields.len() > 60, "the tables are read");
        tables
    }

    fn row(&mut self, heading: &[&'static str], cells: &[&'static str]) {
        match *heading {
            ["who", "where", "number", "why"] => self.differences.push(Difference {
                who: cells[0],
                place: cells[1],
                number: cells[2],
                used: Cell::new(false),
            }),
            ["kernel", "what it is"] => self.not_shown.push(cells[0]),
            _ => {
                let mut field = Field {
                    kernel: Expression::parse(
                        cells[heading.iter().position(|name| *name == "kernel").unwrap()],
                    ),
                    said: BTreeMap::new(),
                };
                for (who, cell) in heading.iter().zip(cells) {
                    if *who == "kernel" || cell.is_empty() {
                        continue;
                    }
                    // The first word: `ctr`, of `ctr task metrics`.
                    let who = who.trim_matches('`').split(' ').next().unwrap_or_default();
                    field.said.insert(who, Expression::parse(cell));
                }
                // runc's names are those of `events`.
                if let Some(cell) = cells
                    .first()
                    .filter(|cell| heading[0] == "`events`" && !cell.is_empty())
                {
                    field.said.insert("runc", Expression::parse(cell));
                }
                self.fields.push(field);
            }
        }
    }

    /// Compares what `who` said with the kernel's numbers from before and after. Returns how many of its numbers are
    /// equal and not 0, and what is wrong.
    pub fn compare(
        &self,
        who: &str,
        place: &str,
        said: &Numbers,
        [before, after]: [&Numbers; 2],
    ) -> (usize, Vec<String>) {
        let mut rest: BTreeSet<&str> = said.keys().map(String::as_str).collect();
        let (mut compared, mut wrong) = (0, Vec::new());
        for field in &self.fields {
            let Some(expression) = field.said.get(who) else {
                continue;
            };
            for star in stars(&field.kernel, before) {
                let Some(range) = field
                    .kernel
                    .value(&star, before)
                    .zip(field.kernel.value(&star, after))
                else {
                    continue;
                };
                let kernels = field
                    .kernel
                    .names()
                    .next()
                    .unwrap_or_default()
                    .replace('*', &star);
                let star = star.replace(' ', ".");
                let names: Vec<_> = expression.names().map(|name| name.replace('*', &star)).collect();
                for name in &names {
                    rest.remove(name.as_str());
                }
                let number = expression.value(&star, &with_zeros(said, &names)).unwrap_or(0.0);
                if is_between(number, range) {
                    compared += usize::from(number != 0.0);
                } else if number != 0.0 || !self.is_known(who, place, &kernels) {
                    wrong.push(format!(
                        "{who}, {place}: {} is {number}, the kernel's {range:?}",
                        names.join(" and ")
                    ));
                }
            }
        }
        for name in rest {
            if !self.is_known(who, place, name) {
                wrong.push(format!("{who}, {place}: {name} = {} is in no table", said[name]));
            }
        }
        (compared, wrong)
    }

    /// `name` is the kernel's, or that of a number that is in no table.
    fn is_known(&self, who: &str, place: &str, name: &str) -> bool {
        let known =
            |one: &&Difference| fits(one.who, who) && place.contains(one.place) && fits(one.number, name);
        let found = self.differences.iter().find(known);
        found.inspect(|one| one.used.set(true)).is_some()
    }

    /// The kernel's numbers that no table names.
    pub fn unnamed<'a>(&self, kernel: &'a Numbers) -> Vec<&'a str> {
        let mut rest: BTreeSet<&str> = kernel.keys().map(String::as_str).collect();
        for field in &self.fields {
            for star in stars(&field.kernel, kernel) {
                for name in field.kernel.names() {
                    rest.remove(name.replace('*', &star).as_str());
                }
            }
        }
        rest.retain(|name| !self.not_shown.iter().any(|cell| fits(cell, name)));
        rest.into_iter().collect()
    }

    /// Differences that were not seen in any of these places.
    pub fn outdated(&self, places: &[String]) -> Vec<String> {
        let unseen = self
            .differences
            .iter()
            .filter(|one| !one.used.get() && places.iter().any(|place| place.contains(one.place)));
        unseen
            .map(|one| format!("{} {} {}", one.who, one.place, one.number))
            .collect()
    }
}

/// What the `*` of an expression stands for in the kernel's numbers.
fn stars(kernel: &Expression, numbers: &Numbers) -> Vec<String> {
    let Some(first) = kernel.names().next().filter(|name| name.contains('*')) else {
        return vec![String::new()];
    };
    numbers.keys().filter_map(|name| star(first, name)).collect()
}

/// The numbers, with zeros for those of the names that are not there.
fn with_zeros(numbers: &Numbers, names: &[String]) -> Numbers {
    let zero = |name: &String| (name.clone(), numbers.get(name).copied().unwrap_or(0.0));
    names.iter().map(zero).collect()
}

/// Between both readings, or equal to them except for rounding in the last digit.
fn is_between(number: f64, (one, other): (f64, f64)) -> bool {
    let slack = if one.is_finite() { one.abs() * 1e-12 } else { 0.0 };
    number == one || (one.min(other) - slack..=one.max(other) + slack).contains(&number)
}

#[test]
fn a_wrong_number_is_found() {
    let tables = Tables::read();
    let numbers = |list: &[(&str, f64)]| -> Numbers {
        list.iter()
            .map(|(name, number)| ((*name).to_owned(), *number))
            .collect()
    };
    let kernel = numbers(&[
        ("cpu.stat usage_usec", 7.0),
        ("memory.current", 40.0),
        ("memory.swap.current", 2.0),
        ("io.stat 259:1 rbytes", 512.0),
        ("io.stat 259:1 unheard_of", 1.0),
    ]);
    let right = [
        ("cpu.usage.total", 7000.0),
        ("memory.usage.usage", 40.0),
        ("memory.swap.usage", 42.0),
        ("blkio.ioServiceBytesRecursive.259:1.Read", 512.0),
    ];
    let compare = |said: &[(&str, f64)]| tables.compare("events", "x", &numbers(said), [&kernel; 2]);
    assert_eq!(compare(&right), (4, vec![]));
    for index in 0..right.len() {
        let mut wrong = right;
        wrong[index].1 += 1.0;
        assert_eq!(compare(&wrong).1.len(), 1, "{wrong:?}");
        wrong[index].0 = "memory.unheard_of";
        assert_eq!(compare(&wrong).1.len(), 2, "one is missing, one is in no table");
    }
    assert_eq!(tables.unnamed(&kernel), ["io.stat 259:1 unheard_of"]);
}
