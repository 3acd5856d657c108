//! The configuration's text.

use std::fmt::Write as _;

use super::Proposal;

/// The head of the file.
const HEAD: &str = "\
# What `lamda-node sidecar` watches, as `lamda-node sidecar discover` found it.
# docs/sidecar.md has all settings; docs/profiles.md has the variables of each profile.
";

/// All proposals as TOML.
pub(super) fn toml(all: &[Proposal]) -> String {
    let mut text = HEAD.to_owned();
    for proposal in all {
        text.push_str("\n[[watch]]\n");
        line(&mut text, "name", &proposal.name);
        line(&mut text, "profile", proposal.profile);
        if let Some(peer) = &proposal.peer {
            line(&mut text, "peer", peer);
        }
        if let Some(account) = &proposal.account {
            // For its owner: the chain knows it by the peer.
            text.push_str("# account: ");
            text.extend(account.chars().filter(char::is_ascii_alphanumeric));
            text.push('\n');
        }
        if !proposal.values.is_empty() {
            text.push_str("[watch.set]\n");
        }
        for (key, value) in &proposal.values {
            line(&mut text, key, value);
        }
    }
    if all.is_empty() {
        text.push_str("# Nothing was found.\n");
    }
    text
}

fn line(text: &mut String, key: &str, value: &str) {
    // Writing to a String can't fail.
    _ = writeln!(text, "{key} = {}", quoted(value));
}

/// A basic string of TOML.
fn quoted(value: &str) -> String {
    let mut quoted = "\"".to_owned();
    for c in value.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if crate::report::is_obeyed(c) => _ = write!(quoted, "\\U{:08X}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
