//! Asking shims without ever harming what they run.
//!
//! On a hung guest a `Stats` call is not harmless: Kata's Go shim holds a lock while it waits, so that every
//! other call to it, containerd's own kill too, waits 10 to 31 s. So a [`Lane`] stands before each shim: one
//! call in flight at the most, `State` (which needs no guest) before `Stats`, no `Stats` where `State` does not
//! answer in time, nothing new while a call past its time has not ended, and a rest after one that was late.
//!
//! A [`Survey`] asks many shims at once, each on its lane: a hung one costs its own answer, never the others'.

mod bound;
mod call;
mod lane;
mod many;
mod scrape;
mod shared;

pub use bound::Bound;
pub use lane::{AskError, Lane, NotRunning, Sample};
pub use many::{Subject, Survey};
pub use scrape::{Scrape, ScrapeError};
pub use shared::{Flight, Shared};
