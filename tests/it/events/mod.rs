//! Events of a real node, as a real nats-server and a real redis-server pass them on to other people's readers.

mod away;
mod others;
mod redis;

use serde_json::Value;

use crate::support::program::Ended;
use crate::support::tools::run_with_input;
use crate::support::world::World;

/// Runs `events` with these arguments.
fn events(world: &World, args: &[&str]) -> Ended {
    let mut command = world.command(&[&["events"], args].concat());
    command.env("LOG_LEVEL", "warn");
    Ended(run_with_input(&mut command, ""))
}

/// All events that the stream has, as `events --json` prints them.
fn all(world: &World, args: &[&str]) -> Vec<Value> {
    events(world, &[args, &["--json"]].concat()).succeeds().objects()
}

/// The names of these events: component and type.
fn names(events: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    events
        .iter()
        .map(|event| format!("{}/{}", text(&event["component"]), text(&event["event_type"])))
        .collect()
}

/// Whether these names occur in this order, others between them or not.
fn occur(wanted: &[&str], names: &[String]) -> bool {
    let mut names = names.iter();
    wanted.iter().all(|wanted| names.any(|name| name == wanted))
}
