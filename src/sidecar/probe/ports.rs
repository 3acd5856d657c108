//! Whether something answers at the programs' ports and at those of their backends.
//!
//! Invariants: a connection is closed at once, and nothing is sent over it; where a backend is, nobody is told; no
//! program waits for another one's ports.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};

use super::{Programs, again};
use crate::clock::{Clock as _, SystemClock};
use crate::host::process::port::{Reached, reach};
use crate::sidecar::program::Program;
use crate::supervise::Failure;
use crate::watch::observation::Seen;
use crate::watch::profile::Filled;

/// How often ports are asked.
const EVERY: Duration = Duration::from_secs(5);

/// How long a port may take to answer.
const WITHIN: Duration = Duration::from_secs(2);

/// After how many looks in a row a name that has no address any more counts as closed: one may be a hiccup.
const NAMELESS_LOOKS: u32 = 2;

/// Asks until it is aborted.
pub async fn run(programs: Programs) -> Result<(), Failure> {
    let mut names: Vec<Names> = programs.iter().map(|_| Names::default()).collect();
    loop {
        let each = programs.iter().zip(&mut names);
        try_join_all(each.map(|(program, names)| ask(program, names))).await?;
        SystemClock.sleep(EVERY).await;
    }
}

/// A name and an address for each port of a program. A backend is called by its group and its number in the profile,
/// never by its address.
pub(in crate::sidecar) fn ports(profile: &Filled) -> Vec<(String, String)> {
    let own = profile.ports.iter().map(|it| (it.name.clone(), address(&it.host, it.port)));
    let mut ports: Vec<(String, String)> = own.collect();
    let mut put = |names: [String; 2], (host, port): &(String, u16)| {
        let is_taken = |name: &String| ports.iter().any(|(taken, _)| taken == name);
        let name = names.into_iter().find(|name| !is_taken(name));
        // Three ports of one name are two too many in the profile: the others are asked.
        ports.extend(name.map(|name| (name, address(host, *port))));
    };
    for (group, backends) in &profile.backends {
        for (number, host) in backends.hosts.iter().enumerate() {
            let name = format!("{group} {}", number + 1);
            put([name.clone(), format!("backend {name}")], host);
        }
        if let Some(host) = &backends.coordinator {
            put(["coordinator".to_owned(), format!("{group} coordinator")], host);
        }
    }
    ports
}

fn address(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// In how many looks in a row a port's host had no address, of those that ever had one.
#[derive(Debug, Default)]
struct Names(BTreeMap<String, u32>);

/// What is noted of a port.
#[derive(Debug, PartialEq)]
enum Noted {
    /// Whether it is open.
    Open(bool),
    /// Nothing: the next look will say.
    Nothing,
    /// Why it can't be asked.
    Trouble(String),
}

impl Names {
    fn judge(&mut self, name: &str, reached: Reached) -> Noted {
        let is_open = match reached {
            Reached::NoName(why) => {
                let Some(looks) = self.0.get_mut(name) else { return Noted::Trouble(why) };
                *looks = looks.saturating_add(1);
                let is_gone = *looks >= NAMELESS_LOOKS;
                return if is_gone { Noted::Open(false) } else { Noted::Nothing };
            }
            Reached::Open(_) => true,
            Reached::Refused | Reached::NoAnswer => false,
            Reached::Failed(why) => {
                self.0.insert(name.to_owned(), 0);
                return Noted::Trouble(why);
            }
        };
        self.0.insert(name.to_owned(), 0);
        Noted::Open(is_open)
    }
}

async fn ask(program: &Program, names: &mut Names) -> Result<(), Failure> {
    let ports = ports(&program.watching.profile);
    let reached = join_all(ports.iter().map(|(_, address)| reach(address, WITHIN))).await;
    let known = program.look();
    for ((name, _), reached) in ports.into_iter().zip(reached) {
        let source = format!("port {name}");
        let is_open = match names.judge(&name, reached) {
            Noted::Open(is_open) => is_open,
            Noted::Nothing => continue,
            Noted::Trouble(why) => {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::watch::profile::Shelf;

    #[test]
    fn backends_are_called_by_their_group_and_number_and_never_by_their_address() {
        let values = [
            ("name", "one"),
            ("home", "/home/rig"),
            ("backends", "10.0.0.5:50052,rig.lan:50052"),
            ("coordinator", "127.0.0.1:8080"),
        ];
        let values: BTreeMap<String, String> =
            values.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let profile = Shelf::default().get("llama-cpp").unwrap().fill(&values).unwrap();
        let ports = ports(&profile);
        let called: Vec<(&str, &str)> =
            ports.iter().map(|(name, address)| (name.as_str(), address.as_str())).collect();
        assert_eq!(
            called,
            [
                ("rpc 1", "10.0.0.5:50052"),
                ("rpc 2", "rig.lan:50052"),
                ("coordinator", "127.0.0.1:8080"),
            ]
        );
    }

    #[test]
    fn a_name_that_had_an_address_counts_as_closed_after_the_second_look_without_one() {
        let mut names = Names::default();
        let lost = || Reached::NoName("no such name".to_owned());
        let trouble = Noted::Trouble("no such name".to_owned());
        assert_eq!(names.judge("rpc 1", lost()), trouble, "it never had one");
        assert_eq!(names.judge("rpc 1", lost()), trouble);
        assert_eq!(names.judge("rpc 1", Reached::Refused), Noted::Open(false));
        assert_eq!(names.judge("rpc 1", lost()), Noted::Nothing);
        assert_eq!(names.judge("rpc 1", lost()), Noted::Open(false));
        assert_eq!(names.judge("rpc 1", Reached::Open(WITHIN)), Noted::Open(true));
        assert_eq!(names.judge("rpc 1", lost()), Noted::Nothing, "counted anew");
    }
}
