//! The program as a person or a script uses it: the real binary, its output and its exit codes.

mod cancel;
mod disk;
mod doctor;
mod jobs;
mod keys;
mod sandbox_test;
mod settings;
mod submit;

use std::process::Output;

use crate::support::world::World;

/// Runs `jobs` with these arguments as the node's owner.
fn jobs(world: &World, arguments: &[&str]) -> Output {
    let arguments: Vec<&str> = ["jobs"].iter().chain(arguments).copied().collect();
    world.command(&arguments).output().expect("it runs")
}

/// What `jobs` prints; line ends must be its only control characters.
#[track_caller]
fn told(world: &World, arguments: &[&str]) -> String {
    let output = jobs(world, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    text
}

/// The line about a job; `None` where there is none.
fn line_of(text: &str, id: &str) -> Option<String> {
    text.lines().find(|line| line.split(' ').nth(1) == Some(id)).map(str::to_owned)
}
