//! How fast a log is read, how soon, with how much memory, and what is lost and doubled when it is rotated all the time
//! and the reader is killed all the time.
//!
//! `cargo bench --bench tail [-- --plain MIB | --latency LINES | --long MIB | --storm RENAMES | --copies COPIES]` prints
//! a line of JSON for each; without a word it does all. It works on a folder in the working directory.

#![expect(clippy::print_stdout, reason = "the figures go to stdout")]

mod plain;
mod reader;
mod storm;

use std::path::Path;

fn main() {
    // cargo's own word is in between.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--reader", folder] => reader::follow(Path::new(folder)),
        ["--read-long", path] => reader::long(Path::new(path)),
        ["--plain", mib] => plain::speed(number(mib)),
        ["--latency", lines] => plain::latency(number(lines)),
        ["--long", mib] => plain::long(number(mib)),
        ["--storm", renames] => storm::renames(number(renames)),
        ["--copies", copies] => storm::copies(number(copies)),
        _ => {
            plain::speed(512);
            plain::latency(500);
            plain::long(1_024);
            storm::renames(1_000);
            storm::copies(100);
        }
    }
}

fn number(word: &str) -> u64 {
    word.parse().expect("a number")
}
