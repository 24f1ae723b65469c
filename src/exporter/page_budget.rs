//! How much memory the pages of all sandboxes may take together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::reason::{NoAnswer, Reason};
use crate::show::units;

/// For the pages of all sandboxes, in bytes. A thousand of Kata's pages take 24 to 150 MB.
pub const ALL_PAGES: usize = 256 << 20;

/// Memory for sandboxes' pages, shared by all scrapes.
///
/// A page within its sandbox's equal share is always admitted, so one sandbox's long page cannot keep out another's.
/// Longer pages are admitted while there is memory left for them. All pages of a scrape so take at most twice the budget.
pub struct PageBudget {
    all: usize,
    left: Arc<AtomicUsize>,
}

/// The part of the budget that a long page takes. It is given back when the page is gone.
#[derive(Debug)]
pub struct Charge {
    left: Arc<AtomicUsize>,
    bytes: usize,
}

impl PageBudget {
    pub fn new(all: usize) -> Self {
        Self {
            all,
            left: Arc::new(AtomicUsize::new(all)),
        }
    }

    /// Admits a page that takes this many bytes, of one of so many sandboxes.
    pub fn admit(&self, bytes: usize, sandboxes: usize) -> Result<Option<Charge>, NoAnswer> {
        if bytes <= self.all / sandboxes.max(1) {
            return Ok(None);
        }
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            });
        match taken {
            Ok(_) => Ok(Some(Charge {
                left: self.left.clone(),
                bytes,
            })),
            Err(left) => {
                let [bytes, left, all] = [bytes, left, self.all].map(|bytes| units::bytes(bytes as u64));
                let text = format!(
                    "its page takes {bytes} of memory and was left out: {left} of the {all} for long pages are left"
                );
                Err(NoAnswer::new(Reason::PageBudget, text))
            }
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_pages_share_what_there_is_and_short_ones_always_fit() {
        let budget = PageBudget::new(1000);
        let long = budget.admit(600, 10).unwrap();
        assert!(long.is_some());
        let refused = budget.admit(401, 10).unwrap_err();
        assert_eq!(refused.reason, Reason::PageBudget);
        let rest = budget.admit(400, 10).unwrap();
        assert!(
            budget.admit(100, 10).unwrap().is_none(),
            "a tenth of it is one sandbox's share"
        );
        budget.admit(101, 10).unwrap_err();
        drop(long);
        assert!(budget.admit(600, 10).unwrap().is_some());
        drop(rest);
        assert!(budget.admit(1000, 10).unwrap().is_some(), "all is given back");
    }
}
