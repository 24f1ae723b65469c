//! Asking shims without ever harming what they run.
//!
//! On a hung guest a `Stats` call is not harmless: Kata's Go shim holds a lock while it waits, so that every
//! other call to it, containerd's own kill too, waits 10 to 31 s. So a [`Lane`] stands before each shim: one
//! call in flight at the most, `State` (which needs no guest) before `Stats`, no `Stats` where `State` does not
//! answer in time, nothing new while a call past its time has not ended, and a rest after one that was late.

mod lane;
mod scrape;

pub use lane::{AskError, Lane, NotRunning, Sample};
pub use scrape::{Scrape, ScrapeError};
