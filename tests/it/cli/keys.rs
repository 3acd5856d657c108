//! `key new`, `key import` and `key address`.

use std::os::unix::fs::PermissionsExt as _;

use crate::support::anvil::Anvil;
use crate::support::program::{ACCOUNT, Program};

#[test]
fn a_new_key_is_private_to_its_owner_and_tells_its_address() {
    let program = Program::with(&[]);
    let phrase = program.write("phrase", "correct horse\n");
    let store = program.path("key.json");
    let args = ["key", "new", "--keystore", &store, "--passphrase-file", &phrase];
    let first = program.run(&args).succeeds().stdout();
    assert!(first.starts_with("0x") && first.trim().len() == 42, "{first}");
    let bits = std::fs::metadata(&store).expect("the keystore").permissions().mode() & 0o777;
    assert_eq!(bits, 0o600);
    let address = program.run(&["key", "address", "--keystore", &store]).succeeds().stdout();
    assert_eq!(address, first);
    // A second key under the same name would destroy the first.
    let second = program.run(&args);
    assert_eq!(second.code(), 1);
    assert!(second.stderr().contains("exists and is not overwritten"), "{}", second.stderr());
}

#[test]
fn a_key_is_imported_from_standard_input_and_never_printed() {
    let program = Program::with(&[]);
    let (phrase, store) = (program.write("phrase", "correct horse"), program.path("key.json"));
    let args = ["key", "import", "--keystore", &store, "--passphrase-file", &phrase];
    let digits = Anvil::key_hex(0).trim_start_matches("0x");
    let imported = program.run_with_input(&args, &format!("{digits}\n")).succeeds();
    assert_eq!(imported.stdout().trim(), ACCOUNT);
    assert!(!imported.both().contains(digits));
    let text = std::fs::read_to_string(&store).expect("the keystore");
    assert!(!text.contains(digits) && text.contains("scrypt"), "{text}");
    let other = program.path("other.json");
    let args = ["key", "import", "--keystore", &other, "--passphrase-file", &phrase];
    let refused = program.run_with_input(&args, &digits[2..]);
    assert_eq!(refused.code(), 64);
    assert!(!refused.both().contains(&digits[2..]));
}

#[test]
fn a_keystore_with_the_wrong_passphrase_ends_the_start_with_64() {
    let mut program = Program::with(&[
        ("OPBNB_RPC_URL", "http://127.0.0.1:1"),
        ("REPUTATION_CONTRACT_ADDRESS", ACCOUNT),
        ("PINATA_JWT", "any"),
    ]);
    let (phrase, store) = (program.write("phrase", "right"), program.path("key.json"));
    let args = ["key", "new", "--keystore", &store, "--passphrase-file", &phrase];
    program.run(&args).succeeds();
    program.set("AGENT_KEYSTORE", &store);
    program.set("AGENT_KEYSTORE_PASSPHRASE_FILE", &program.write("wrong", "hunter2"));
    let ended = program.run(&["run"]);
    assert_eq!(ended.code(), 64, "{}", ended.both());
    assert!(ended.stderr().contains("the passphrase does not open"), "{}", ended.stderr());
    assert!(!ended.both().contains("hunter2"));
}
