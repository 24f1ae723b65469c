//! The part of a request's address behind the `?`.

/// The value of the first parameter of that name that has one, decoded; `None` where there is none.
pub fn value(query: Option<&str>, name: &str) -> Option<String> {
    query?.split('&').find_map(|parameter| {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        (decode(key) == name)
            .then(|| decode(value))
            .filter(|value| !value.is_empty())
    })
}

/// Percent escapes and `+` decoded, as a form's are; bytes that are no UTF-8 are replaced.
fn decode(text: &str) -> String {
    let mut rest = text.as_bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, after) {
            (b'%', [high, low, after @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                decoded.push(hex(*high).unwrap_or(0) << 4 | hex(*low).unwrap_or(0));
                rest = after;
            }
            (b'+', _) => decoded.push(b' '),
            _ => decoded.push(*byte),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    u8::try_from(char::from(digit).to_digit(16)?).ok()
}

/// A text as a part of a query.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_and_decodes_a_value() {
        let query = Some("a=1&sandbox=ab%2Dc+d%zz&empty=&sandbox=second&%66ilter=x%2Cy");
        assert_eq!(value(query, "sandbox").as_deref(), Some("ab-c d%zz"));
        assert_eq!(value(query, "filter").as_deref(), Some("x,y"));
        assert_eq!(value(query, "empty"), None);
        assert_eq!(value(query, "missing"), None);
        assert_eq!(value(None, "sandbox"), None);
        assert_eq!(value(Some("sandbox=%"), "sandbox").as_deref(), Some("%"));
        assert_eq!(value(Some("sandbox=%4"), "sandbox").as_deref(), Some("%4"));
        assert_eq!(value(Some("sandbox=%ff"), "sandbox").as_deref(), Some("\u{fffd}"));
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(text in any::<String>()) {
            prop_assert_eq!(decode(&encode(&text)), text);
        }
    }
}
