#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "each target aims at one of them")]
#[path = "../../tests/common/laws.rs"]
mod laws;

fuzz_target!(|data: &[u8]| laws::http_range(data));
