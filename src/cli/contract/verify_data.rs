//! `contract verify-data`: what an explorer needs to verify that the code on a chain was compiled from
//! `contracts/`: the exact compiler, its settings, and every source.
//!
//! `--json`: `contract`, `compiler`, `evm_version`, `optimizer_runs`, `via_ir`, `constructor_arguments`
//! (there are none) and `standard_json_input`.

use anyhow::Context as _;
use serde_json::{Value, json};

use super::super::out;

/// Generated and checked by `cargo xtask abi`.
const INPUT: &str = include_str!("../../../abi/NodeReputation.verify.json");
const ARTEFACT: &str = include_str!("../../../abi/NodeReputation.json");

const CONTRACT: &str = "src/NodeReputation.sol:NodeReputation";

/// Arguments of `contract verify-data`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The compiler's standard JSON input alone: the file to upload
    #[arg(long, conflicts_with = "json")]
    input: bool,
    /// One JSON object, for programs
    #[arg(long)]
    json: bool,
}

pub(super) fn verify_data(args: &Args) -> anyhow::Result<()> {
    if args.input {
        return Ok(out::line(INPUT.trim_end())?);
    }
    let input: Value = serde_json::from_str(INPUT).context("the compiler's input")?;
    let artefact: Value = serde_json::from_str(ARTEFACT).context("the contract's artefact")?;
    let compiler = artefact["compiler"].as_str().context("the compiler's version")?;
    let compiler = format!("v{compiler}");
    let settings = &input["settings"];
    let evm_version = settings["evmVersion"].as_str().context("the EVM's version")?;
    let runs = &settings["optimizer"]["runs"];
    let via_ir = settings["viaIR"] == true;
    if args.json {
        return Ok(out::json(&json!({
            "contract": CONTRACT, "compiler": compiler, "evm_version": evm_version,
            "optimizer_runs": runs, "via_ir": via_ir, "constructor_arguments": "",
            "standard_json_input": input,
        }))?);
    }
    for line in [
        format!("contract: {CONTRACT}"),
        format!("compiler: {compiler}"),
        format!("optimizer: {runs} runs, by way of Yul: {via_ir}, EVM version: {evm_version}"),
        "constructor arguments: none".to_owned(),
        "licence: MIT or Apache-2.0".to_owned(),
        "standard JSON input: `lamda-node contract verify-data --input > input.json`".to_owned(),
    ] {
        out::line(&line)?;
    }
    Ok(())
}
