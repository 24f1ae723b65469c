//! Rows as comma-separated values (RFC 4180), for spreadsheets and scripts.

use super::field::{Facts, Field};

/// The names of the columns, with their units.
pub fn header(columns: &[&Field]) -> String {
    line(columns.iter().map(|field| field.key()))
}

/// A row; what is not known is empty.
pub fn row(columns: &[&Field], facts: &Facts) -> String {
    line(columns.iter().map(|field| field.plain(facts).unwrap_or_default()))
}

/// Kept by hand: a library for it would be longer than this.
pub fn line(cells: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let cells: Vec<_> = cells.into_iter().map(|text| cell(text.as_ref())).collect();
    format!("{}\n", cells.join(","))
}

fn cell(text: &str) -> String {
    // A spreadsheet takes a text like this for a formula, and a pod's name is untrusted.
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']) && text.parse::<f64>().is_err();
    if is_formula || text.contains(['"', ',', '\n', '\r']) {
        let guard = if is_formula { "'" } else { "" };
        format!("\"{guard}{}\"", text.replace('"', "\"\""))
    } else {
        text.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_needed_and_no_formula_is_one() {
        let cells = [
            "",
            "a",
            "b,c",
            "say \"hi\"",
            "two\nlines",
            "=1+1",
            "-5",
            "+Inf",
            "-x",
        ];
        let expected = ",a,\"b,c\",\"say \"\"hi\"\"\",\"two\nlines\",\"'=1+1\",-5,+Inf,\"'-x\"\n";
        assert_eq!(line(cells), expected);
    }
}
