//! Whose jobs are accepted.
//!
//! Must hold: without a list of requesters the NATS server must be on this machine, or the owner must say
//! explicitly that everybody's jobs are wanted: whoever can reach the server can publish a job.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::env::{Env, Variable};
use crate::agent::JobAuth;
use crate::bus::Config as BusConfig;
use crate::ids::Address;

const JOB_AUTH: Variable = Variable::new("JOB_AUTH", "open");
const JOB_ALLOWED_REQUESTERS: Variable =
    Variable::new("JOB_ALLOWED_REQUESTERS", "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266");

pub(super) fn read(env: &mut Env<'_>, bus: Option<&BusConfig>) -> Option<JobAuth> {
    let open = match env.text(JOB_AUTH) {
        Some(word) if word.eq_ignore_ascii_case("open") => true,
        Some(_) => {
            env.problem(JOB_AUTH, "the only value is open: everybody's jobs are taken");
            return None;
        }
        None => false,
    };
    let listed = env.is_set(JOB_ALLOWED_REQUESTERS);
    let requesters = requesters(env)?;
    match (open, listed) {
        (true, true) => {
            let what = "it is set together with JOB_AUTH=open: leave one of the two out";
            env.problem(JOB_ALLOWED_REQUESTERS, what);
            None
        }
        (true, false) => Some(JobAuth::Open),
        (false, true) => Some(JobAuth::Requesters(requesters)),
        (false, false) if bus.is_none_or(|bus| is_loopback(&bus.url)) => Some(JobAuth::Open),
        (false, false) => {
            let what = "NATS_URL is not on this machine, so anybody who reaches that server could \
                        run jobs here; add JOB_AUTH=open to .env where that is wanted, or list who \
                        may in JOB_ALLOWED_REQUESTERS";
            env.problem(JOB_AUTH, what);
            None
        }
    }
}

fn requesters(env: &mut Env<'_>) -> Option<BTreeSet<Address>> {
    let mut requesters = BTreeSet::new();
    let parts = env.list(JOB_ALLOWED_REQUESTERS);
    let total = parts.len();
    for part in parts {
        match part.parse() {
            Ok(address) => _ = requesters.insert(address),
            Err(err) => {
                let shown = super::env::shown(&part);
                env.problem(JOB_ALLOWED_REQUESTERS, format!("{shown} of its list is {err}"));
                return None;
            }
        }
    }
    // Also if the line is empty: whoever wrote it wanted a list, not an open node.
    if total == 0 && (env.is_set(JOB_ALLOWED_REQUESTERS) || env.is_blank(JOB_ALLOWED_REQUESTERS)) {
        let what = "its list names nobody: list who may, or leave the line out";
        env.problem(JOB_ALLOWED_REQUESTERS, what);
        return None;
    }
    Some(requesters)
}

/// Whether every server of a NATS URL, or of a comma list of them, is on this machine.
pub fn is_loopback(urls: &str) -> bool {
    urls.split(',').all(|url| {
        let rest = url.trim();
        let rest = rest.split_once("://").map_or(rest, |(_, rest)| rest);
        let rest = rest.split('/').next().unwrap_or_default();
        let authority = rest.rsplit('@').next().unwrap_or_default();
        let host = match authority.strip_prefix('[') {
            Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        };
        let address = host.parse::<IpAddr>().ok();
        host.eq_ignore_ascii_case("localhost") || address.is_some_and(|ip| ip.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_on_this_machine_are_loopback() {
        for url in [
            "nats://localhost:4222",
            "nats://127.0.0.1:4222",
            "127.8.8.8",
            "tls://[::1]:4222",
            "nats://user:pw@localhost",
            "nats://localhost:1,nats://127.0.0.1:2",
        ] {
            assert!(is_loopback(url), "{url}");
        }
        for url in [
            "nats://example.com:4222",
            "nats://localhost.example.com",
            "nats://localhost@example.com",
            "nats://127.0.0.1.example.com",
            "nats://0.0.0.0:4222",
            "nats://10.0.0.1",
            "nats://localhost:1,nats://example.com",
            "",
        ] {
            assert!(!is_loopback(url), "{url}");
        }
    }
}
