//! `contract verify-data`: an explorer can rebuild the committed bytecode.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::program;
use crate::support::contracts::Kind;
use crate::support::tools::run_with_input;

#[test]
fn an_explorers_input_compiles_to_the_committed_bytecode() {
    let (input, code) = program(&[], &["contract", "verify-data", "--input"]);
    assert_eq!(code, 0);
    let solc = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/solc");
    // scripts/solc needs node, and `npm ci` in contracts/.
    let compiled = run_with_input(&mut Command::new(&solc), &input);
    let errors = String::from_utf8_lossy(&compiled.stderr);
    let answer: Value = serde_json::from_slice(&compiled.stdout)
        .unwrap_or_else(|err| panic!("scripts/solc gives no answer: {err}\n{errors}"));
    let built = &answer["contracts"]["src/NodeReputation.sol"]["NodeReputation"];
    let object = built["evm"]["bytecode"]["object"].as_str().unwrap_or_default();
    let committed = Kind::Ours.artefact();
    assert!(committed["bytecode"] == format!("0x{object}"), "{}", answer["errors"]);

    let (told, _) = program(&[], &["contract", "verify-data", "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    let metadata: Value = serde_json::from_str(built["metadata"].as_str().unwrap()).unwrap();
    let version = metadata["compiler"]["version"].as_str().unwrap();
    assert_eq!(told["compiler"], format!("v{version}"), "the compiler says so itself");
    assert_eq!(told["evm_version"], metadata["settings"]["evmVersion"]);
    assert_eq!(told["optimizer_runs"], metadata["settings"]["optimizer"]["runs"]);
    assert_eq!(told["via_ir"], metadata["settings"]["viaIR"]);
    assert_eq!(told["constructor_arguments"], "");
    assert_eq!(told["standard_json_input"], serde_json::from_str::<Value>(&input).unwrap());
    let (text, _) = program(&[], &["contract", "verify-data"]);
    assert!(text.contains(version), "{text}");
}
