//! Checks the properties of the fuzz targets on their corpus and on each row of the table of raw bytes. Each input of
//! the corpus took a new path through the code, so the tests find a broken property without the fuzzer.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use crate::properties;

/// Returns the files of one target's corpus.
#[track_caller]
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let files: Vec<_> = entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(files.len() >= 100, "{} files in {}", files.len(), folder.display());
    files
}

#[track_caller]
fn check(property: fn(&[u8]), inputs: &[Vec<u8>]) {
    for input in inputs {
        assert!(catch_unwind(|| property(input)).is_ok(), "broken by {:?}", String::from_utf8_lossy(input));
    }
}

#[test]
fn every_head_of_the_corpus_has_the_properties() {
    check(properties::head_is_read_in_one_way, &corpus("head"));
}

#[test]
fn every_row_of_the_raw_bytes_has_the_properties() {
    check(properties::head_is_read_in_one_way, &crate::raw_bytes::all_bytes());
}

#[test]
fn every_body_of_the_corpus_has_the_properties() {
    check(properties::body_is_read_in_one_way, &corpus("body"));
}
