//! Coordinators and backends of llama.cpp, by their arguments.

use super::{Found, Kind, Proposal, Running, option_of};

/// The profile for llama.cpp and its RPC backends.
const LLAMA: &str = "llama-cpp";

/// A coordinator of llama.cpp, with the backends that it names.
pub(super) fn coordinator(process: &Running) -> Proposal {
    let option = |names: &[&str]| option_of(&process.arguments, names);
    let host = match option(&["--host"]) {
        None | Some("0.0.0.0" | "::") => "127.0.0.1",
        Some(host) => host,
    };
    let port = option(&["--port"]).unwrap_or("8080");
    let mut proposal = Proposal { name: "llama".to_owned(), profile: LLAMA, ..Proposal::default() };
    // Between brackets the colons of an IPv6 address are none before a port.
    let is_bare = host.contains(':') && !host.starts_with('[');
    let host = if is_bare { format!("[{host}]") } else { host.to_owned() };
    proposal.values.insert("coordinator", format!("{host}:{port}"));
    if let Some(backends) = option(&["--rpc"]) {
        proposal.values.insert("backends", backends.to_owned());
    }
    if let Some(log) = option(&["--log-file"]) {
        proposal.values.insert("coordinator_log", log.to_owned());
    }
    proposal
}

/// Backends on this machine that no coordinator here names.
pub(super) fn backends(found: &Found, all: &mut Vec<Proposal>, missing: &mut Vec<String>) {
    let here: Vec<String> = found
        .processes
        .iter()
        .filter(|process| process.kind == Kind::LlamaBackend)
        .map(|process| {
            let port = option_of(&process.arguments, &["-p", "--port"]).unwrap_or("50052");
            format!("127.0.0.1:{port}")
        })
        .collect();
    if here.is_empty()
        || all.iter().any(|it| it.profile == LLAMA && it.values.contains_key("backends"))
    {
        return;
    }
    if let Some(proposal) = all.iter_mut().find(|proposal| proposal.profile == LLAMA) {
        proposal.values.insert("backends", here.join(","));
    } else {
        missing.push(
            "There are RPC backends here, but no coordinator: set coordinator to it.".to_owned(),
        );
        let values = [("backends", here.join(","))].into();
        all.push(Proposal {
            name: "llama".to_owned(),
            profile: LLAMA,
            values,
            ..Proposal::default()
        });
    }
}
