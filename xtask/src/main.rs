//! The repository's own checks: `cargo xtask ci`, and each of its parts on its own.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a developer's tool prints")]

mod abi;
mod ci;
mod deny;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};

const USAGE: &str = "\
usage: cargo xtask <command>

  ci [--long]    everything that must hold before a change lands; stops at the first failure
                 --long: also the tests under `long::`, more cases and more fuzzing
  ci --list      the steps of ci, in order
  ci --only S    one step of it
  tidy           floors, file lengths, module heads and other rules on the text
  abi [--check]  writes abi/ and tests/fixtures/ from contracts/, or compares them";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("{err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = root()?;
    match args.as_slice() {
        ["ci"] => ci::run(&root, ci::Depth::Normal),
        ["ci", "--long"] => ci::run(&root, ci::Depth::Long),
        ["ci", "--list"] => {
            for step in ci::STEPS {
                println!("{:<10} {}", step.name, step.what);
            }
            Ok(())
        }
        ["ci", "--only", name] => ci::run_only(&root, name),
        ["tidy"] => tidy_up(&root),
        ["abi"] => abi::run(false),
        ["abi", "--check"] => abi::run(true),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        other => bail!("no such command: {}\n\n{USAGE}", other.join(" ")),
    }
}

/// The repository's root: the parent of this package's folder when cargo runs it. The folder at build
/// time won't do: two clones may share one target folder.
pub(crate) fn root() -> anyhow::Result<PathBuf> {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").context("run it as `cargo xtask`")?;
    let package = PathBuf::from(package);
    Ok(package.parent().context("xtask lies in the repository")?.to_owned())
}

/// Prints every finding; fails if there is any.
fn tidy_up(root: &Path) -> anyhow::Result<()> {
    let findings = tidy::findings(root)?;
    for finding in &findings {
        println!("{finding}");
    }
    ensure!(findings.is_empty(), "tidy: {} findings", findings.len());
    Ok(())
}
