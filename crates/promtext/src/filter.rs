//! Which families are asked for.

/// Prefixes of family names, as kata-monitor's `filter_family` has them.
///
/// A family is served whole or not at all, and its name is the one that it is served with: `kata_shim_go_`
/// fits, `go_` does not. (kata-monitor does the same, but writes a family twice that two prefixes fit, and
/// leaves its own families out where there is a filter.)
///
/// ```
/// use promtext::Filter;
///
/// let filter = Filter::parse("kata_guest_,kata_shim_go_");
/// assert!(filter.fits("kata_guest_load") && !filter.fits("kata_agent_threads"));
/// assert!(Filter::default().fits("anything"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    prefixes: Vec<String>,
}

impl Filter {
    /// Reads a list with commas. Blanks around a prefix and empty prefixes are passed over; where nothing is
    /// left, every family fits.
    pub fn parse(list: &str) -> Self {
        let prefixes = list.split(',').map(str::trim).filter(|prefix| !prefix.is_empty());
        Self {
            prefixes: prefixes.map(str::to_owned).collect(),
        }
    }

    /// Whether the family of that name is asked for.
    pub fn fits(&self, family: &str) -> bool {
        self.fits_bytes(family.as_bytes())
    }

    pub(super) fn fits_bytes(&self, family: &[u8]) -> bool {
        self.prefixes.is_empty()
            || self
                .prefixes
                .iter()
                .any(|prefix| family.starts_with(prefix.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_fits_from_the_start_of_the_name() {
        let filter = Filter::parse("kata_guest_, kata_shim");
        assert!(filter.fits("kata_guest_load"));
        assert!(filter.fits("kata_shim_go_goroutines"));
        assert!(!filter.fits("kata_agent_threads"));
        assert!(!filter.fits("go_kata_guest_load"));
        assert!(!filter.fits("kata_guest"));
    }

    #[test]
    fn nothing_asked_for_is_everything() {
        for list in ["", ",", " , "] {
            assert_eq!(Filter::parse(list), Filter::default(), "{list:?}");
        }
        assert!(Filter::parse("").fits("x"));
        assert!(!Filter::parse("x,").fits("y"));
    }
}
