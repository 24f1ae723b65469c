//! Short ids and names, as people see them.

use std::borrow::Cow;

use super::text::escape;

/// The digits of a random id that are shown, as in `crictl ps` and `docker ps`.
const SHORT: usize = 12;

/// An id with at least this many hex digits was made up at random, so its start is an id as well. Others are shown
/// whole.
const RANDOM: usize = 32;

/// The start of an id that was made up at random, any other id as it is; safe for a terminal.
pub fn short_id(id: &str) -> Cow<'_, str> {
    let random = id.len() >= RANDOM && id.bytes().all(|b| b.is_ascii_hexdigit());
    match id.get(..SHORT) {
        Some(short) if random => Cow::Borrowed(short),
        _ => escape(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_made_up_at_random_are_cut() {
        let random = "5779b2366f47cd1468ebb1ba7c52cbdde3c7d3a5f2af3eefadc8356700fc860b";
        assert_eq!(short_id(random), "5779b2366f47");
        assert_eq!(
            short_id("web-server-of-the-shop-in-namespace-default-1"),
            "web-server-of-the-shop-in-namespace-default-1"
        );
        assert_eq!(short_id("5779b2366f47cd"), "5779b2366f47cd");
        assert_eq!(short_id("a\x1b[2Jb"), "a\\u{1b}[2Jb");
    }
}
