//! A web.config.file, whatever is in it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| exporter_web::fuzz_web_config(text));
