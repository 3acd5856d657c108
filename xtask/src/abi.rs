//! The compiled contracts: `abi/` for the program and for explorers, `tests/fixtures/` for the tests of the
//! agent.
//!
//! The files are committed so that building the program needs no Solidity tools. Must hold: they are what
//! `contracts/` compiles to; [`run`] with `check` reports where they are not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Map, Value, json};

/// The contracts and their committed files, each with ABI, bytecode and compiler version.
const ARTEFACTS: [(&str, &str); 4] = [
    ("NodeReputation", "abi/NodeReputation.json"),
    ("MockSwarmCoordinator", "tests/fixtures/MockSwarmCoordinator.json"),
    ("PlainReputation", "tests/fixtures/PlainReputation.json"),
    ("OnceReputation", "tests/fixtures/OnceReputation.json"),
];

/// The interface of a contract that is somebody else's, and its committed file, with ABI and compiler version.
const INTERFACE: (&str, &str) = ("ISwarmCoordinator", "abi/SwarmCoordinator.json");

/// The contract that explorers verify, and the file with the complete compiler input for it.
const VERIFIED: (&str, &str) = ("NodeReputation", "abi/NodeReputation.verify.json");

/// Compiles the contracts and writes the files, or with `check` compares them instead.
pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    let root = &crate::root()?;
    let contracts = root.join("contracts");
    build(root, &contracts)?;
    for (contract, file) in ARTEFACTS {
        settle(root, file, &artefact(&built(&contracts, contract)?)?, check)?;
    }
    let (contract, file) = INTERFACE;
    settle(root, file, &interface(&built(&contracts, contract)?)?, check)?;
    let (contract, file) = VERIFIED;
    settle(root, file, &standard_input(&contracts, &built(&contracts, contract)?)?, check)
}

/// Writes one file, or compares it.
fn settle(root: &Path, file: &str, fresh: &Value, check: bool) -> anyhow::Result<()> {
    let fresh = serde_json::to_string_pretty(fresh)? + "\n";
    let path = root.join(file);
    if !check {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        return fs::write(&path, fresh).with_context(|| format!("{file} can't be written"));
    }
    let committed = fs::read_to_string(&path).with_context(|| format!("{file} can't be read"))?;
    ensure!(
        committed == fresh,
        "{file} is not what contracts/ compiles to: run `cargo xtask abi` and commit it"
    );
    Ok(())
}

fn build(root: &Path, contracts: &Path) -> anyhow::Result<()> {
    let built = Command::new(forge(root))
        .args(["build", "--quiet"])
        .current_dir(contracts)
        .output()
        .context("forge can't be started: scripts/test installs it")?;
    if !built.status.success() {
        let said =
            [built.stdout, built.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        bail!("forge could not build the contracts:\n{}", said.concat());
    }
    Ok(())
}

/// The artefact that forge built for a contract.
fn built(contracts: &Path, contract: &str) -> anyhow::Result<Value> {
    let out = contracts.join(format!("out/{contract}.sol/{contract}.json"));
    let text = fs::read_to_string(&out).with_context(|| format!("forge built no {contract}"))?;
    serde_json::from_str(&text).context("forge's artefact is no JSON")
}

/// The part of forge's artefact that is committed.
fn artefact(built: &Value) -> anyhow::Result<Value> {
    let bytecode = built["bytecode"]["object"].as_str().unwrap_or_default();
    if bytecode.len() <= 2 || !bytecode.starts_with("0x") {
        bail!("forge's artefact holds no bytecode");
    }
    let mut artefact = interface(built)?;
    artefact["bytecode"] = json!(bytecode);
    Ok(artefact)
}

/// The same of an interface, which has no bytecode.
fn interface(built: &Value) -> anyhow::Result<Value> {
    let compiler = built["metadata"]["compiler"]["version"].as_str().unwrap_or_default();
    ensure!(built["abi"].is_array(), "forge's artefact holds no ABI");
    ensure!(compiler.contains("+commit."), "forge's artefact names no exact compiler");
    Ok(json!({"abi": built["abi"], "compiler": compiler}))
}

/// The compiler's standard JSON input that yields this artefact, with every source in it, so that an
/// explorer accepts it unchanged. The settings are those that the compiler recorded in its metadata.
fn standard_input(contracts: &Path, built: &Value) -> anyhow::Result<Value> {
    let metadata = &built["metadata"];
    let mut settings = metadata["settings"].as_object().context("no compiler settings")?.clone();
    settings.remove("compilationTarget").context("no compilation target")?;
    let wanted = ["abi", "evm.bytecode.object", "evm.deployedBytecode.object", "metadata"];
    settings.insert("outputSelection".to_owned(), json!({"*": {"*": wanted}}));
    let mut sources = Map::new();
    for path in metadata["sources"].as_object().context("no sources")?.keys() {
        let content = fs::read_to_string(contracts.join(path)).with_context(|| path.clone())?;
        sources.insert(path.clone(), json!({"content": content}));
    }
    Ok(json!({"language": "Solidity", "settings": settings, "sources": sources}))
}

/// The path of forge: in the repository's own tools, in the contracts' packages, else from `PATH`.
fn forge(root: &Path) -> PathBuf {
    let packaged = "contracts/node_modules/@foundry-rs/forge-linux-amd64/bin/forge";
    [".tools/bin/forge", packaged]
        .map(|place| root.join(place))
        .into_iter()
        .find(|place| place.is_file())
        .unwrap_or_else(|| PathBuf::from("forge"))
}
