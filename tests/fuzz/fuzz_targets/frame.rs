//! What a broker does with bytes before it knows whose request they are.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| towpath_fuzz::exercise_frames(data));
