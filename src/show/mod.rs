//! Everything that a person sees.

pub mod json;
pub mod name;
pub mod table;
pub mod text;
pub mod time;
pub mod units;
