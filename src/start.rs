//! What tokio panics about when a program starts: the machine has no more threads or descriptors for it.

use std::panic;

use crate::exit::{Failure, RESOURCES};
use crate::output;

/// Runs a part of the start, and ends the program with a word about what is missing where that panics.
pub fn or_say_what_is_missing<T>(start: impl FnOnce() -> T) -> T {
    let usual = panic::take_hook();
    // A release build ends with a panic, so that it cannot be caught.
    #[allow(clippy::exit)]
    panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        let failure = Failure::new(format!("start: {}", text.unwrap_or("tokio panicked"))).and(RESOURCES);
        output::report(&failure);
        std::process::exit(1);
    }));
    let started = start();
    panic::set_hook(usual);
    started
}
