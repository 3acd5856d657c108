//! Whether something answers at the programs' ports and at those of their backends.
//!
//! Invariant: a connection is closed at once, and nothing is sent over it.

use std::time::Duration;

use futures_util::future::join_all;

use super::{Programs, again};
use crate::clock::{Clock as _, SystemClock};
use crate::host::process::port::{Reached, reach};
use crate::sidecar::program::Program;
use crate::supervise::Failure;
use crate::watch::observation::Seen;

/// How often ports are asked.
const EVERY: Duration = Duration::from_secs(5);

/// How long a port may take to answer.
const WITHIN: Duration = Duration::from_secs(2);

/// Asks until it is aborted.
pub async fn run(programs: Programs) -> Result<(), Failure> {
    loop {
        for program in programs.iter() {
            ask(program).await?;
        }
        SystemClock.sleep(EVERY).await;
    }
}

/// A name and an address for each port of a program.
pub fn ports(program: &Program) -> Vec<(String, String)> {
    let filled = &program.watching.profile;
    let own = filled.ports.iter().map(|it| (it.name.clone(), address(&it.host, it.port)));
    let groups = filled.backends.values();
    let others = groups.flat_map(|group| group.hosts.iter().chain(&group.coordinator));
    let others = others.map(|(host, port)| (address(host, *port), address(host, *port)));
    own.chain(others).collect()
}

fn address(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

async fn ask(program: &Program) -> Result<(), Failure> {
    let ports = ports(program);
    let reached = join_all(ports.iter().map(|(_, address)| reach(address, WITHIN))).await;
    let known = program.look();
    for ((name, _), reached) in ports.into_iter().zip(reached) {
        let source = format!("port {name}");
        let is_open = match reached {
            Reached::Open(_) => true,
            Reached::Refused | Reached::NoAnswer => false,
            Reached::Failed(why) => {
                program.source(&source, Some(why)).await.map_err(again)?;
                continue;
            }
        };
        program.source(&source, None).await.map_err(again)?;
        if known.state.ports.get(&name).is_none_or(|(was, _)| *was != is_open) {
            program.saw(Seen::Port { name, is_open }).await.map_err(again)?;
        }
    }
    Ok(())
}
