//! The steps of `cargo xtask ci`, in order, cheap ones first. The first that fails ends the run and is
//! named; no step is skipped.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};

/// How much time the tests may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// What every change has to pass: half an hour on two cores, including the builds.
    Normal,
    /// Also tests whose path begins with `long::`, more generated cases and more fuzz runs.
    Long,
}

/// One step of `ci`: its name, what it does, and the check itself.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    check: fn(&Path, Depth) -> anyhow::Result<()>,
}

/// Clippy comes before doc and test: all three use the same checked dependencies.
pub(crate) const STEPS: &[Step] = &[
    Step { name: "fmt", what: "cargo fmt --check", check: fmt_check },
    Step { name: "tidy", what: "floors, lengths and other rules on the text", check: tidy },
    Step { name: "scripts", what: "shellcheck over scripts/ and .ci/", check: scripts },
    Step { name: "contracts", what: "forge fmt --check, build, test", check: contracts },
    Step { name: "abi", what: "abi/ is what contracts/src compiles to", check: abi },
    Step { name: "clippy", what: "every target, warnings are errors", check: clippy },
    Step { name: "deny", what: "licences, bans and sources of deny.toml", check: deny },
    Step { name: "doc", what: "rustdoc, warnings are errors", check: doc },
    Step { name: "test", what: "unit tests, and integration tests on the real parts", check: test },
    Step { name: "doctest", what: "the examples in the documentation", check: doctest },
];

/// Runs every step; stops at the first failure.
pub(crate) fn run(root: &Path, depth: Depth) -> anyhow::Result<()> {
    let started = Instant::now();
    for step in STEPS {
        run_step(root, step, depth)?;
    }
    println!("ci: all {} steps passed in {} s", STEPS.len(), started.elapsed().as_secs());
    Ok(())
}

/// Runs only the step of this name.
pub(crate) fn run_only(root: &Path, name: &str) -> anyhow::Result<()> {
    let step = STEPS.iter().find(|step| step.name == name);
    let step = step.with_context(|| format!("ci has no step `{name}`: see `ci --list`"))?;
    run_step(root, step, Depth::Normal)
}

fn run_step(root: &Path, step: &Step, depth: Depth) -> anyhow::Result<()> {
    println!("ci: {} ({})", step.name, step.what);
    let started = Instant::now();
    (step.check)(root, depth).with_context(|| format!("ci: step `{}` failed", step.name))?;
    println!("ci: {} passed in {} s", step.name, started.elapsed().as_secs());
    Ok(())
}

fn fmt_check(root: &Path, _: Depth) -> anyhow::Result<()> {
    call(cargo(root).args(["fmt", "--all", "--check"]))
}

fn tidy(root: &Path, _: Depth) -> anyhow::Result<()> {
    crate::tidy_up(root)
}

fn scripts(root: &Path, _: Depth) -> anyhow::Result<()> {
    let mut files = vec![root.join(".ci/run")];
    for folder in ["scripts", "scripts/lib", "scripts/lib/gpu-check"] {
        let entries = std::fs::read_dir(root.join(folder)).with_context(|| folder.to_owned())?;
        for entry in entries {
            let path = entry?.path();
            if path.is_file() && is_shell(&path)? {
                files.push(path);
            }
        }
    }
    files.sort();
    call(
        tool(root, "shellcheck")
            .args(["--external-sources", "--source-path=SCRIPTDIR"])
            .args(files),
    )
}

/// Recognises a sourced library by its name, a program by its first line.
fn is_shell(path: &Path) -> anyhow::Result<bool> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let first = text.lines().next().unwrap_or_default();
    Ok(path.extension().is_some_and(|e| e == "sh")
        || first.starts_with("#!") && first.contains("bash"))
}

fn contracts(root: &Path, depth: Depth) -> anyhow::Result<()> {
    let forge = |args: &[&str]| {
        let mut command = tool(root, "forge");
        command.current_dir(root.join("contracts")).args(args);
        // Each call must cost the gas recorded in contracts/snapshots.
        command.env("FORGE_SNAPSHOT_CHECK", "true");
        if depth == Depth::Long {
            command.env("FOUNDRY_PROFILE", "ci");
        }
        call(&mut command)
    };
    forge(&["fmt", "--check"])?;
    forge(&["build"])?;
    forge(&["test"])
}

fn abi(_: &Path, _: Depth) -> anyhow::Result<()> {
    crate::abi::run(true)
}

fn clippy(root: &Path, _: Depth) -> anyhow::Result<()> {
    let args = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    call(cargo(root).args(args))
}

fn deny(root: &Path, _: Depth) -> anyhow::Result<()> {
    crate::deny::check(root)
}

fn doc(root: &Path, _: Depth) -> anyhow::Result<()> {
    let args = ["doc", "--workspace", "--no-deps", "--locked"];
    call(cargo(root).env("RUSTDOCFLAGS", "-D warnings").args(args))
}

/// `cargo nextest` if it is installed (one process per test, all failures at the end), else
/// `cargo test`: the same tests either way.
fn test(root: &Path, depth: Depth) -> anyhow::Result<()> {
    let mut probe = cargo(root);
    probe.args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    let has_nextest = probe.status().is_ok_and(|status| status.success());
    let mut command = cargo(root);
    if depth == Depth::Long {
        command.env("PROPTEST_CASES", "10000");
    }
    if has_nextest {
        command.args(["nextest", "run", "--workspace", "--locked"]);
        if depth == Depth::Long {
            command.arg("--ignore-default-filter");
        }
    } else {
        command.args(["test", "--workspace", "--locked", "--lib", "--bins", "--tests"]);
        if depth == Depth::Normal {
            command.args(["--", "--skip", "long::"]);
        }
    }
    call(&mut command)
}

fn doctest(root: &Path, _: Depth) -> anyhow::Result<()> {
    call(cargo(root).args(["test", "--workspace", "--locked", "--doc"]))
}

/// The cargo that started this program.
fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// A program from `.tools/bin`, else from `PATH`.
fn tool(root: &Path, name: &str) -> Command {
    let own = root.join(".tools/bin").join(name);
    let mut command = Command::new(if own.is_file() { own } else { name.into() });
    command.current_dir(root);
    command
}

/// Runs a command to completion; anything but success is an error that names the command.
fn call(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = match command.status() {
        Ok(status) => status,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
            bail!("{name} is missing: scripts/test installs it")
        }
        Err(err) => return Err(err).with_context(|| format!("{name} can't be started")),
    };
    ensure!(status.success(), "{name} ended with {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_remedy() {
        let err = call(&mut Command::new("no-such-program")).unwrap_err();
        assert_eq!(err.to_string(), "no-such-program is missing: scripts/test installs it");
    }

    #[test]
    fn a_program_that_fails_fails_the_step() {
        assert!(call(&mut Command::new("false")).is_err());
        assert!(call(&mut Command::new("true")).is_ok());
    }

    #[test]
    fn a_step_that_is_not_there_is_refused() {
        assert!(run_only(Path::new("."), "nothing").is_err());
    }
}
