//! Escapes in label values and help texts.

/// Writes `value` as it stands between the quotes of a label.
pub(crate) fn escape_label(value: &str, out: &mut Vec<u8>) {
    for byte in value.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            _ => escape_byte(byte, out),
        }
    }
}

/// Writes `text` as the text of a HELP line.
pub(crate) fn escape_help(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        escape_byte(byte, out);
    }
}

fn escape_byte(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        _ => out.push(byte),
    }
}

/// Writes escaped text, and doubles each backslash that is before none of `known`: Prometheus reads it as a backslash,
/// other readers refuse it.
pub(crate) fn mend_escapes(text: &[u8], known: &[u8], out: &mut Vec<u8>) {
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        out.push(byte);
        if byte != b'\\' {
            continue;
        }
        match bytes.as_slice().first() {
            Some(next) if known.contains(next) => {
                out.push(*next);
                bytes.next();
            }
            _ => out.push(b'\\'),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_keeps_its_meaning() {
        let mend = |text: &str| {
            let mut out = Vec::new();
            mend_escapes(text.as_bytes(), b"\\n", &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(mend(r#"a\nb \\ \q \" \"#), r#"a\nb \\ \\q \\" \\"#);
        let mut out = Vec::new();
        escape_help("a\nb\\ \"c\"", &mut out);
        assert_eq!(out, br#"a\nb\\ "c""#);
    }
}
