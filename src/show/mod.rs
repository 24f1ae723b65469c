//! How things are shown to people: columns, tables, JSON, names, numbers and times.

// Narrow columns are for `top` alone.
#![cfg_attr(not(feature = "top"), allow(dead_code))]

pub mod columns;
pub mod csv;
pub mod field;
pub mod fields;
pub mod json;
pub mod name;
pub mod table;
pub mod text;
pub mod time;
pub mod units;
