//! A second reader of the format, simple and slow, that shares no code with the library.

use std::collections::{BTreeMap, BTreeSet};

/// Name and labels (unescaped, empty ones left out).
pub type Series = (String, BTreeMap<String, String>);

/// Value and timestamp, as written.
pub type Number = (String, Option<String>);

struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    number: Number,
}

struct Text {
    rest: std::collections::VecDeque<u8>,
}

impl Text {
    fn new(text: &[u8]) -> Self {
        Self {
            rest: text.iter().copied().collect(),
        }
    }

    fn is(&self, byte: u8) -> bool {
        self.rest.front() == Some(&byte)
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.is(byte).then(|| self.rest.pop_front()).map(drop)
    }

    fn blanks(&mut self) -> usize {
        let before = self.rest.len();
        while self.is(b' ') || self.is(b'\t') {
            self.rest.pop_front();
        }
        before - self.rest.len()
    }

    fn name(&mut self, colon: bool) -> Option<String> {
        let mut name = String::new();
        while let Some(&byte) = self.rest.front() {
            let char = byte as char;
            let fits = char.is_ascii_alphabetic()
                || char == '_'
                || (char == ':' && colon)
                || (char.is_ascii_digit() && !name.is_empty());
            if !fits {
                break;
            }
            name.push(char);
            self.rest.pop_front();
        }
        (!name.is_empty()).then_some(name)
    }

    fn quoted(&mut self) -> Option<String> {
        self.take(b'"')?;
        let mut bytes = Vec::new();
        loop {
            match self.rest.pop_front()? {
                b'"' => return String::from_utf8(bytes).ok(),
                b'\\' => match self.rest.pop_front()? {
                    b'n' => bytes.push(b'\n'),
                    known @ (b'"' | b'\\') => bytes.push(known),
                    unknown => bytes.extend([b'\\', unknown]),
                },
                byte => bytes.push(byte),
            }
        }
    }

    fn word(&mut self) -> Vec<u8> {
        let end = self
            .rest
            .iter()
            .position(|byte| b" \t".contains(byte))
            .unwrap_or(self.rest.len());
        self.rest.drain(..end).collect()
    }
}

/// Go's ParseFloat, less what Prometheus forbids.
fn float(text: &str) -> bool {
    let lower = text.to_lowercase();
    match lower.trim_start_matches(['+', '-']) {
        "nan" => lower == "nan",
        "inf" | "infinity" => lower.len() - lower.trim_start_matches(['+', '-']).len() <= 1,
        _ => text.parse::<f64>().is_ok_and(f64::is_finite),
    }
}

fn sample(line: &[u8]) -> Option<Sample> {
    let mut text = Text::new(line);
    text.blanks();
    let name = text.name(true)?;
    text.blanks();
    let mut labels: Vec<(String, String)> = Vec::new();
    if text.take(b'{').is_some() {
        text.blanks();
        while text.take(b'}').is_none() {
            let label = text.name(false)?;
            text.blanks();
            text.take(b'=')?;
            text.blanks();
            let value = text.quoted()?;
            text.blanks();
            if text.take(b',').is_some() {
                text.blanks();
            }
            if label == "__name__" || labels.iter().any(|(other, _)| *other == label) {
                return None;
            }
            labels.push((label, value));
        }
        text.blanks();
    }
    let value = String::from_utf8(text.word()).ok().filter(|value| float(value))?;
    text.blanks();
    let timestamp = String::from_utf8(text.word()).ok()?;
    text.blanks();
    let digits = timestamp.chars().all(|char| char.is_ascii_digit());
    if !text.rest.is_empty() || !digits || (!timestamp.is_empty() && timestamp.parse::<i64>().is_err()) {
        return None;
    }
    Some(Sample {
        name,
        labels,
        number: (value, Some(timestamp).filter(|text| !text.is_empty())),
    })
}

fn samples(body: &[u8]) -> impl Iterator<Item = Option<Sample>> {
    body.split(|&byte| byte == b'\n').filter_map(|line| {
        let trimmed: Vec<u8> = line
            .iter()
            .copied()
            .skip_while(|byte| b" \t".contains(byte))
            .collect();
        (!trimmed.is_empty() && trimmed[0] != b'#').then(|| sample(line))
    })
}

/// Counts samples.
pub fn count(body: &[u8]) -> usize {
    samples(body).flatten().count()
}

/// The series that must be written of a body, and how many of its lines are lost.
pub fn read(body: &[u8], added: &[(&str, &str)], prefix: bool) -> (BTreeMap<Series, Number>, usize) {
    let mut kept = BTreeMap::new();
    let mut lost = 0;
    for sample in samples(body) {
        let Some(sample) = sample else {
            lost += 1;
            continue;
        };
        let own: BTreeSet<_> = sample.labels.iter().map(|(label, _)| label.clone()).collect();
        let mut labels: BTreeMap<String, String> = BTreeMap::new();
        for (mut label, value) in sample.labels {
            if let Some((_, ours)) = added.iter().find(|(name, _)| *name == label) {
                if value == *ours {
                    continue;
                }
                while own.contains(&label) || added.iter().any(|(name, _)| *name == label) {
                    label.insert_str(0, "exported_");
                }
            }
            labels.insert(label, value);
        }
        labels.extend(
            added
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string())),
        );
        labels.retain(|_, value| !value.is_empty());
        let name = if prefix && sample.name.starts_with("go_") {
            format!("shim_{}", sample.name)
        } else {
            sample.name
        };
        match kept.entry((name, labels)) {
            std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(sample.number)),
            std::collections::btree_map::Entry::Occupied(_) => lost += 1,
        }
    }
    (kept, lost)
}

/// The series of a strictly valid page, or what is wrong with it.
pub fn check_page(page: &[u8]) -> Result<BTreeMap<Series, Number>, String> {
    let page = std::str::from_utf8(page).map_err(|error| error.to_string())?;
    if !page.is_empty() && !page.ends_with('\n') {
        return Err("no line feed at the end".into());
    }
    let mut found = BTreeMap::new();
    let mut lines = page.split_terminator('\n').peekable();
    let mut last = String::new();
    let mut histograms: Vec<(String, &[&str])> = Vec::new();
    while let Some(mut line) = lines.next() {
        let mut helped = None;
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            if help.trim().is_empty() || help.replace("\\\\", "").replace("\\n", "").contains('\\') {
                return Err(format!("bad HELP: {line}"));
            }
            helped = Some(name);
            line = lines.next().ok_or("HELP without TYPE")?;
        }
        let (name, kind) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
            .ok_or_else(|| format!("no TYPE: {line}"))?;
        if helped.is_some_and(|helped| helped != name) {
            return Err(format!("HELP of another family before {line}"));
        }
        if name <= last.as_str() {
            return Err(format!("{name} after {last}"));
        }
        last = name.to_owned();
        if histograms
            .iter()
            .any(|(base, ends)| ends.iter().any(|end| name == format!("{base}{end}")))
        {
            return Err(format!("{name} is read as part of a histogram or summary"));
        }
        let suffixes: &[&str] = match kind {
            "counter" | "gauge" | "untyped" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            "summary" => &["", "_sum", "_count"],
            _ => return Err(format!("{name} is of type {kind}")),
        };
        if suffixes.len() > 1 {
            histograms.push((
                name.to_owned(),
                if kind == "histogram" {
                    suffixes
                } else {
                    &["_sum", "_count"]
                },
            ));
        }
        let mut samples = 0;
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            samples += 1;
            let sample = sample(line.as_bytes()).ok_or_else(|| format!("no sample: {line}"))?;
            if strict(&sample) != line {
                return Err(format!("not in the plain form: {line}"));
            }
            let suffix = suffixes
                .iter()
                .find(|suffix| sample.name == format!("{name}{suffix}"));
            let suffix = suffix.ok_or_else(|| format!("not of {name}: {line}"))?;
            let bound = |label: &str| {
                sample
                    .labels
                    .iter()
                    .find(|(name, _)| name == label)
                    .map(|(_, value)| float(value))
            };
            let fits = match kind {
                "histogram" => bound("le").unwrap_or(*suffix != "_bucket"),
                "summary" => bound("quantile").unwrap_or(!suffix.is_empty()),
                _ => true,
            };
            if !fits {
                return Err(format!("not for a {kind}: {line}"));
            }
            let labels = sample
                .labels
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .collect();
            if found.insert((sample.name, labels), sample.number).is_some() {
                return Err(format!("twice: {line}"));
            }
        }
        if samples == 0 {
            return Err(format!("{name} has no samples"));
        }
    }
    Ok(found)
}

/// The one way to write a sample.
fn strict(sample: &Sample) -> String {
    let labels: Vec<_> = sample
        .labels
        .iter()
        .map(|(name, value)| {
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            format!("{name}=\"{value}\"")
        })
        .collect();
    let braces = if labels.is_empty() {
        String::new()
    } else {
        format!("{{{}}}", labels.join(","))
    };
    let (value, timestamp) = &sample.number;
    let timestamp = timestamp
        .iter()
        .map(|timestamp| format!(" {timestamp}"))
        .collect::<String>();
    format!("{}{braces} {value}{timestamp}", sample.name)
}
