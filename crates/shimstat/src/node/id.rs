//! Ids of containers and sandboxes.

/// The longest id that containerd takes.
const MAX_LENGTH: usize = 76;

/// The pattern of containerd's ids
/// (<https://github.com/containerd/containerd/blob/main/pkg/identifiers/validate.go>).
const PATTERN: &str = "^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$";

/// Why a text is neither an id nor the beginning of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("container id cannot be empty")]
    Empty,
    /// A character, or the place of a separator, that containerd does not allow.
    #[error("invalid container/sandbox ID (should match \"{PATTERN}\")")]
    Pattern,
    /// It is longer than containerd allows.
    #[error("invalid container/sandbox ID (longer than {MAX_LENGTH} characters)")]
    TooLong,
}

/// An id or the beginning of one. It is safe as the name of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(String);

impl Id {
    /// Checks an id, or the beginning of one: that may also end in a separator.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        if text.len() > MAX_LENGTH {
            return Err(IdError::TooLong);
        }
        let mut after_separator = true;
        for byte in text.bytes() {
            match byte {
                b'.' | b'_' | b'-' if !after_separator => after_separator = true,
                _ if byte.is_ascii_alphanumeric() => after_separator = false,
                _ => return Err(IdError::Pattern),
            }
        }
        Ok(Self(text.to_string()))
    }

    /// The id as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_ids_and_beginnings_of_ids() {
        let longest = "a".repeat(76);
        for text in [
            "a",
            "0",
            "5779b2366f47",
            "my-box_1.x",
            "a-",
            "a.",
            longest.as_str(),
        ] {
            assert_eq!(Id::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn refuses_what_could_leave_the_directory_or_is_no_id() {
        assert_eq!(Id::parse(""), Err(IdError::Empty));
        assert_eq!(Id::parse(&"a".repeat(77)), Err(IdError::TooLong));
        for text in [
            ".",
            "..",
            "../x",
            "a/b",
            "/",
            "-a",
            ".a",
            "a..b",
            "a--b",
            "a._b",
            "a b",
            "a\0",
            "a\n",
            "ä",
            "a*",
            "*",
            "a\u{202e}",
            "--",
        ] {
            assert_eq!(Id::parse(text), Err(IdError::Pattern), "{text:?}");
        }
    }
}
