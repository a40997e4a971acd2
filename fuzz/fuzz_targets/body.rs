//! Any bytes as the body of `POST /sync`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| windmill_git_sync_fuzz::body_is_read_in_one_way(bytes));
