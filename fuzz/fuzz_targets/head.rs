//! Any bytes as the head of a request.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| windmill_git_sync_fuzz::head_is_read_in_one_way(bytes));
