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
/// let merge = Merge::new(vec![page], &Filter::parse("go_,node_load5"));
/// assert_eq!(
///     merge.into_bytes(),
///     b"# TYPE go_threads untyped\ngo_threads 7\n# TYPE node_load5 untyped\nnode_load5 0.4\n"
/// );
/// # Ok::<(), promtext::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    prefixes: Vec<String>,
}

impl Filter {
    /// Reads prefixes separated by commas. Blanks around them and empty ones are ignored; with no prefix left, every
    /// family fits.
    pub fn parse(list: &str) -> Self {
        let prefixes = list.split(',').map(str::trim).filter(|prefix| !prefix.is_empty());
        Self {
            prefixes: prefixes.map(str::to_owned).collect(),
        }
    }

    pub(crate) fn fits(&self, family: &[u8]) -> bool {
        let mut prefixes = self.prefixes.iter();
        self.prefixes.is_empty() || prefixes.any(|prefix| family.starts_with(prefix.as_bytes()))
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
        for list in ["", ",", " , "] {
            assert_eq!(Filter::parse(list), Filter::default(), "{list:?}");
        }
        assert!(Filter::parse("").fits(b"x"));
        assert!(!Filter::parse("x,").fits(b"y"));
    }
}
