//! Which families are wanted.

/// Prefixes of family names. The default lets every family through.
///
/// A family is kept whole or not at all, and its name is the one in the merged page: with its prefix, if its page's
/// [`Relabel`](crate::Relabel) gives it one.
///
/// ```
/// use promtext::{Filter, Merge, Page, Relabel};
///
/// let page = Page::read("node_load1 0.5\nnode_load5 0.4\ngo_threads 7\n", Relabel::default())?;
/// let merge = Merge::new(vec![page], &Filter::parse("go_,node_,-node_load1"));
/// assert_eq!(
///     merge.into_bytes(),
///     b"# TYPE go_threads untyped\ngo_threads 7\n# TYPE node_load5 untyped\nnode_load5 0.4\n"
/// );
/// # Ok::<(), promtext::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// A family is to fit all of them.
    lists: Vec<Prefixes>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Prefixes {
    kept: Vec<String>,
    left_out: Vec<String>,
}

impl Filter {
    /// Reads prefixes separated by commas. Families with a prefix that has a `-` before it are left out; of the others,
    /// those with one of the other prefixes are kept, or all where there are none. Blanks around prefixes and empty ones
    /// are ignored.
    pub fn parse(list: &str) -> Self {
        let mut prefixes = Prefixes::default();
        for prefix in list.split(',').map(str::trim) {
            match prefix.strip_prefix('-').map(str::trim) {
                Some(prefix) if !prefix.is_empty() => prefixes.left_out.push(prefix.to_owned()),
                None if !prefix.is_empty() => prefixes.kept.push(prefix.to_owned()),
                _ => {}
            }
        }
        let is_empty = prefixes == Prefixes::default();
        Self {
            lists: if is_empty { Vec::new() } else { vec![prefixes] },
        }
    }

    /// The families that both let through.
    pub fn and(mut self, other: Self) -> Self {
        self.lists.extend(other.lists);
        self
    }

    pub(crate) fn fits(&self, family: &[u8]) -> bool {
        self.lists.iter().all(|list| list.fits(family))
    }

    /// Whether a family whose name starts so may fit.
    pub fn may_fit(&self, start: &str) -> bool {
        self.lists.iter().all(|list| {
            let mut longer = list.kept.iter().filter(|prefix| prefix.starts_with(start));
            list.fits(start.as_bytes()) || longer.any(|prefix| list.fits(prefix.as_bytes()))
        })
    }
}

impl Prefixes {
    fn fits(&self, family: &[u8]) -> bool {
        let fits = |prefixes: &[String]| {
            prefixes
                .iter()
                .any(|prefix| family.starts_with(prefix.as_bytes()))
        };
        (self.kept.is_empty() || fits(&self.kept)) && !fits(&self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_fits_from_the_start_of_the_name() {
        let filter = Filter::parse("node_cpu_, node_disk");
        assert!(filter.fits(b"node_cpu_seconds_total"));
        assert!(filter.fits(b"node_disk_io_now"));
        assert!(!filter.fits(b"node_load1"));
        assert!(!filter.fits(b"go_node_cpu_x"));
        assert!(!filter.fits(b"node_cpu"));
    }

    #[test]
    fn without_prefixes_everything_fits() {
        for list in ["", ",", " , ", "-", " - ,"] {
            assert_eq!(Filter::parse(list), Filter::default(), "{list:?}");
        }
        assert!(Filter::parse("").fits(b"x"));
        assert!(!Filter::parse("x,").fits(b"y"));
    }

    #[test]
    fn what_is_left_out_leaves_the_rest() {
        let all_but = Filter::parse("-node_disk_, -go_");
        assert!(
            all_but.fits(b"node_load1") && !all_but.fits(b"node_disk_io") && !all_but.fits(b"go_threads")
        );
        let some = Filter::parse("node_,-node_disk_,node_disk_io");
        for (name, fits) in [
            ("node_load1", true),
            ("node_disk_io_now", false),
            ("go_threads", false),
        ] {
            assert_eq!(some.fits(name.as_bytes()), fits, "{name}");
        }
        let both = some.and(Filter::parse("-node_load,node_"));
        assert!(both.fits(b"node_cpu") && !both.fits(b"node_load1") && !both.fits(b"node_disk_reads"));
    }

    #[test]
    fn it_tells_what_cannot_fit() {
        for (list, start, may) in [
            ("", "node_", true),
            ("node_disk_io", "node_", true),
            ("n", "node_", true),
            ("go_", "node_", false),
            ("-node_", "node_", false),
            ("-node_disk_", "node_", true),
            ("-n,node_disk_", "node_", false),
            ("node_disk_,-node_load_", "node_", true),
            ("node_disk_,-node_disk_", "node_", false),
        ] {
            assert_eq!(Filter::parse(list).may_fit(start), may, "{list:?} {start}");
        }
        assert!(!Filter::parse("go_").and(Filter::parse("node_")).may_fit("go_"));
    }
}
