//! Reads what programs leave on a machine: command lines, logs, settings.
//!
//! Must hold: of the file that a login leaves, only the account is kept; a peer id is taken only from a line in which
//! the program speaks of itself, not from one about its peers.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The swarm's program of today.
    Hydra,
    /// The swarm's program of the time before.
    Legacy,
    /// The coordinator of llama.cpp.
    LlamaServer,
    /// A backend of llama.cpp.
    LlamaBackend,
    /// Something that its owner asked for.
    Other,
}

/// What a process with these arguments is, if a profile knows it.
pub fn kind_of(arguments: &[String]) -> Option<Kind> {
    let program = arguments.first()?.rsplit('/').next()?;
    let has = |part: &str| arguments.iter().skip(1).any(|word| word.contains(part));
    let is_python = program.starts_with("python");
    match program {
        _ if is_python && (has("code_gen_exp.runner") || has("rgym_exp.runner")) => {
            Some(Kind::Hydra)
        }
        _ if is_python && has("hivemind_exp") => Some(Kind::Legacy),
        "llama-server" => Some(Kind::LlamaServer),
        "rpc-server" | "ggml-rpc-server" | "llama-rpc-server" => Some(Kind::LlamaBackend),
        _ => None,
    }
}

/// The value of the first of these options, as the next argument or after `=`.
pub fn option_of<'a>(arguments: &'a [String], names: &[&str]) -> Option<&'a str> {
    let mut words = arguments.iter().skip(1);
    while let Some(word) = words.next() {
        if names.contains(&word.as_str()) {
            return words.next().map(String::as_str);
        }
        if let Some((name, value)) = word.split_once('=')
            && names.contains(&name)
        {
            return Some(value);
        }
    }
    None
}

#[derive(Deserialize)]
struct Login {
    address: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Login(Login),
    Other(IgnoredAny),
}

/// The account in the text of `userData.json`: at its top, or one level below.
pub fn account_of(text: &str) -> Option<String> {
    let top = serde_json::from_str::<Login>(text).ok()?.address;
    let below = || {
        let entries: BTreeMap<String, Entry> = serde_json::from_str(text).ok()?;
        entries.into_values().find_map(|entry| match entry {
            Entry::Login(login) => login.address,
            Entry::Other(_) => None,
        })
    };
    top.or_else(below).filter(|address| is_address(address))
}

fn is_address(text: &str) -> bool {
    text.strip_prefix("0x")
        .is_some_and(|hex| hex.len() == 40 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The node's own peer id in a log: the newest that it calls its own.
pub fn peer_of(log: &str) -> Option<String> {
    let own = log.lines().rev().filter(|line| line.contains("Hello") || line.contains("Peer ID ["));
    own.flat_map(|line| line.split('[').skip(1).collect::<Vec<_>>())
        .filter_map(|part| part.split(']').next())
        .find(|id| is_peer(id))
        .map(str::to_owned)
}

fn is_peer(text: &str) -> bool {
    let is_form = (text.len() == 46 && text.starts_with("Qm"))
        || (text.len() == 52 && text.starts_with("12D3KooW"));
    is_form && text.bytes().all(|byte| byte.is_ascii_alphanumeric() && !b"0OIl".contains(&byte))
}

/// The swarm's contract in a script or a configuration: the first address on a line about one.
pub fn contract_of(text: &str) -> Option<String> {
    let about = text.lines().filter(|line| {
        let line = line.trim_start().to_ascii_lowercase();
        // The other one is for the judges of programs.
        line.contains("contract") && !line.contains("prg") && !line.starts_with('#')
    });
    about
        .flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric()))
        .find(|word| is_address(word))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &str) -> Vec<String> {
        command.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_program_is_known_by_what_it_runs_and_not_by_a_word_in_passing() {
        for (command, kind) in [
            (
                "/x/.venv/bin/python3 -m code_gen_exp.runner.swarm_launcher --config-path c",
                Some(Kind::Hydra),
            ),
            ("python -m rgym_exp.runner.swarm_launcher", Some(Kind::Hydra)),
            ("python3.10 -m hivemind_exp.gsm8k.train_single_gpu --hf_token x", Some(Kind::Legacy)),
            ("/opt/llama/llama-server -m x.gguf --rpc a:1", Some(Kind::LlamaServer)),
            ("./rpc-server -p 50052", Some(Kind::LlamaBackend)),
            ("grep -r rgym_exp.runner .", None),
            ("vim code_gen_exp.runner.py", None),
            ("nginx: master", None),
        ] {
            assert_eq!(kind_of(&words(command)), kind, "{command}");
        }
        assert_eq!(kind_of(&[]), None);
    }

    #[test]
    fn an_option_has_its_value_beside_it_or_after_an_equals_sign() {
        let arguments = words("llama-server --port=9000 --rpc a:1,b:2 --host");
        assert_eq!(option_of(&arguments, &["--port"]), Some("9000"));
        assert_eq!(option_of(&arguments, &["-r", "--rpc"]), Some("a:1,b:2"));
        assert_eq!(option_of(&arguments, &["--host"]), None);
    }

    #[test]
    fn of_a_login_only_the_account_is_read() {
        let address = "0x00000000000000000000000000000000000000aA";
        let below = format!(
            r#"{{"org-1": {{"email": "a@b.example", "address": "{address}", "userId": "u"}}}}"#
        );
        assert_eq!(account_of(&below).as_deref(), Some(address));
        let top = format!(r#"{{"address": "{address}", "n": [1]}}"#);
        assert_eq!(account_of(&top).as_deref(), Some(address));
        for text in
            ["", "{", "[]", r#"{"a": 1}"#, r#"{"address": "0x12"}"#, r#"{"a": {"address": 7}}"#]
        {
            assert_eq!(account_of(text), None, "{text}");
        }
    }

    #[test]
    fn a_peer_is_the_newest_that_the_node_calls_its_own() {
        let own = "QmQ2gEXoPJg6iMBSUFWGzAabS2VhnzuS782Y637hGjfsRJ";
        let other = "QmWhiaLrx3HRZfgXc2i7KW5nMUNK7P9tRc71yFJdGEZKkC";
        let log = format!(
            "[t][genrl][INFO] - bootnodes: ['/ip4/1.2.3.4/tcp/1/p2p/{other}']\n\
             [t][genrl][INFO] - 🐱 Hello 🐈 [old old old] 🦮 [{other}]!\n\
             [t][genrl][INFO] - 🐝 Hello [tall grey cat] [{own}]!\n\
             [t][genrl][INFO] - heard of [{other}]\n"
        );
        assert_eq!(peer_of(&log).as_deref(), Some(own));
        assert_eq!(peer_of("Peer ID [Qm0] is already registered!"), None);
        assert_eq!(peer_of(""), None);
    }

    #[test]
    fn a_contract_is_the_swarms_and_not_the_judges_nor_a_comment() {
        let swarm = "0xFaD7C5e93f28257429569B854151A1B8DCD404c2";
        let judges = "0x51D4db531ae706a6eC732458825465058fA23a35";
        let script = format!(
            "# SWARM_CONTRACT=\"0x{0}\"\nexport PRG_CONTRACT=\"{judges}\"\nSWARM_CONTRACT=\"{swarm}\"\n",
            "1".repeat(40)
        );
        assert_eq!(contract_of(&script).as_deref(), Some(swarm));
        let yaml = format!("blockchain:\n  swarm_contract_address: {swarm}\n");
        assert_eq!(contract_of(&yaml).as_deref(), Some(swarm));
        assert_eq!(contract_of("swarm_contract_address: ${oc.env:SWARM_CONTRACT,null}"), None);
    }
}
