//! What a plugin returns.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| towpath_fuzz::exercise_plugin_batch(data));
