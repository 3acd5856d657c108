//! `abi/NodeReputation.json`: the contract's ABI and bytecode as the compiler makes them.
//!
//! The file is committed so that building the program needs no Solidity tools; what must hold is
//! that it is what `contracts/src` compiles to, and [`run`] with `check` says where it is not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

const ARTEFACT: &str = "abi/NodeReputation.json";

/// Compiles the contracts and writes the artefact, or with `check` compares it instead.
pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has a parent")?;
    let fresh = compile(root)?;
    let path = root.join(ARTEFACT);
    if !check {
        return fs::write(&path, fresh).with_context(|| format!("{ARTEFACT} can't be written"));
    }
    let committed =
        fs::read_to_string(&path).with_context(|| format!("{ARTEFACT} can't be read"))?;
    if committed != fresh {
        bail!(
            "{ARTEFACT} is not what contracts/src compiles to: run `cargo xtask abi` and commit it"
        );
    }
    Ok(())
}

/// The artefact's text: exactly the keys `abi` and `bytecode`.
fn compile(root: &Path) -> anyhow::Result<String> {
    let contracts = root.join("contracts");
    let built = Command::new(forge(root))
        .args(["build", "--quiet"])
        .current_dir(&contracts)
        .output()
        .context("forge can't be started: scripts/test installs it")?;
    if !built.status.success() {
        let said =
            [built.stdout, built.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        bail!("forge could not build the contracts:\n{}", said.concat());
    }
    let out = contracts.join("out/NodeReputation.sol/NodeReputation.json");
    let text = fs::read_to_string(&out).context("forge built no NodeReputation")?;
    let full: Value = serde_json::from_str(&text).context("forge's artefact is no JSON")?;
    let bytecode = full["bytecode"]["object"].as_str().unwrap_or_default();
    if !full["abi"].is_array() || bytecode.len() <= 2 || !bytecode.starts_with("0x") {
        bail!("forge's artefact holds no ABI or no bytecode");
    }
    let artefact = json!({"abi": full["abi"], "bytecode": bytecode});
    Ok(serde_json::to_string_pretty(&artefact)? + "\n")
}

/// Where forge is: the repository's own tools, the contracts' packages, else `PATH`.
fn forge(root: &Path) -> PathBuf {
    let packaged = "contracts/node_modules/@foundry-rs/forge-linux-amd64/bin/forge";
    [".tools/bin/forge", packaged]
        .map(|place| root.join(place))
        .into_iter()
        .find(|place| place.is_file())
        .unwrap_or_else(|| PathBuf::from("forge"))
}
