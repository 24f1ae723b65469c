//! What the kernel, our commands, ctr and runc say of a container, as numbers by name. All of it is read by other code than the
//! library's.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::Value;

use super::tables::Numbers;
use crate::exporter::{Page, label};

/// The files of a cgroup: `memory.current`, `cpu.stat usage_usec`, `io.stat 259:0 rbytes`, `cpu.pressure some avg10`.
pub fn kernel(directory: &Path) -> Numbers {
    let mut numbers = Numbers::new();
    for entry in fs::read_dir(directory).expect("the cgroup is there").flatten() {
        let file = entry.file_name().into_string().expect("a name of the kernel's");
        // Some can only be written, and some say that their controller is off.
        let Ok(text) = fs::read_to_string(entry.path()) else {
            continue;
        };
        match file.as_str() {
            "cgroup.procs" => {
                numbers.insert("cgroup.procs count".into(), text.lines().count() as f64);
            }
            "cpu.max" => {
                for (name, word) in ["cpu.max quota", "cpu.max period"]
                    .into_iter()
                    .zip(text.split_whitespace())
                {
                    numbers.extend(number(word).map(|number| (name.to_owned(), number)));
                }
            }
            _ => numbers.extend(text.lines().flat_map(|text| line(&file, text))),
        }
    }
    numbers
}

fn line(file: &str, line: &str) -> Vec<(String, f64)> {
    let words: Vec<_> = line.split_whitespace().collect();
    let named = |name: &str, word: &str| Some((format!("{file}{name}"), number(word)?));
    match words[..] {
        [word] if !word.contains('=') => named("", word).into_iter().collect(),
        [key, word] if !word.contains('=') => named(&format!(" {key}"), word).into_iter().collect(),
        [first, ref rest @ ..] => {
            let (prefix, pairs) = if first.contains('=') {
                (String::new(), &words[..])
            } else {
                (format!(" {first}"), rest)
            };
            let pairs = pairs.iter().filter_map(|pair| pair.split_once('='));
            pairs
                .filter_map(|(key, word)| named(&format!("{prefix} {key}"), word))
                .collect()
        }
        [] => Vec::new(),
    }
}

fn number(word: &str) -> Option<f64> {
    match word {
        "max" => Some(f64::INFINITY),
        word => word.parse().ok(),
    }
}

/// The numbers in JSON of `events`, runc or ctr: `cpu.usage.total`, `hugetlb.2MB.current`, `io.usage.259:0.rbytes`.
pub fn json(value: &Value) -> Numbers {
    let mut numbers = Numbers::new();
    walk("", value, &mut numbers);
    numbers
}

fn walk(path: &str, value: &Value, numbers: &mut Numbers) {
    let below = |name: &str| {
        let dot = if path.is_empty() { "" } else { "." };
        format!("{path}{dot}{name}")
    };
    match value {
        Value::Number(number) => {
            let unlimited = number.as_u64() == Some(u64::MAX);
            let number = number.as_f64().expect("a number of JSON");
            numbers.insert(path.to_owned(), if unlimited { f64::INFINITY } else { number });
        }
        Value::Object(object) => {
            for (key, value) in object {
                walk(&below(key), value, numbers);
            }
        }
        Value::Array(entries) => {
            for entry in entries {
                entry_of_list(&below, entry, numbers);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// An entry is of a device or of a page size. A number of 0 is left out of it.
fn entry_of_list(below: &dyn Fn(&str) -> String, entry: &Value, numbers: &mut Numbers) {
    let part = |key: &str| entry[key].as_u64().unwrap_or(0);
    let name = match entry["pagesize"].as_str() {
        Some(size) => size.to_owned(),
        None => format!("{}:{}", part("major"), part("minor")),
    };
    match entry["op"].as_str() {
        Some(operation) => {
            numbers.insert(below(&format!("{name}.{operation}")), part("value") as f64);
        }
        None => {
            let mut entry = entry.clone();
            for key in ["major", "minor"] {
                entry.as_object_mut().expect("an object").remove(key);
            }
            walk(&below(&name), &entry, numbers);
        }
    }
}

/// The row of a container in a table of comma-separated values, by its headings. A cell without anything in it has no number.
pub fn csv(table: &str) -> Numbers {
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(',').collect()).collect();
    let cells = rows[0].iter().zip(&rows[1]);
    cells
        .filter_map(|(heading, cell)| Some(((*heading).to_owned(), cell.parse().ok()?)))
        .collect()
}

/// The samples of a container, by family and by those labels that do not say whose they are.
pub fn page(page: &Page, id: &str) -> Numbers {
    let ours = page
        .text
        .lines()
        .filter(|line| line.starts_with("container_") && label(line, "id") == Some(id));
    ours.map(|line| {
        let family = line.split('{').next().expect("a name");
        let labels: Vec<_> = ["cpu", "device", "failure_type", "operation", "pagesize", "scope"]
            .into_iter()
            .filter_map(|key| Some(format!("{key}=\"{}\"", device_number(label(line, key)?))))
            .collect();
        let labels = match &labels[..] {
            [] => String::new(),
            labels => format!("{{{}}}", labels.join(",")),
        };
        let value = line.rsplit_once(' ').expect("a value").1;
        (format!("{family}{labels}"), value.parse().expect("a number"))
    })
    .collect()
}

/// `259:0` of `/dev/nvme0n1`; another text as it is.
fn device_number(text: &str) -> String {
    match fs::metadata(text) {
        Ok(device) if text.starts_with("/dev/") => {
            format!("{}:{}", libc::major(device.rdev()), libc::minor(device.rdev()))
        }
        _ => text.to_owned(),
    }
}
