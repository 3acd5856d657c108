//! Which of our events feeds which channel, stream and key of `SynapticLlamas` and SOLLOL.
//!
//! Must hold: [`SEEN`] has one row for each kind of event; a name that nothing feeds says why.

use crate::fleet::event::Event;

/// A channel, stream, list or key of theirs.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its name in Redis.
    pub name: &'static str,
    /// What it is there.
    pub kept: Kept,
    /// What feeds it.
    pub feed: Feed,
    /// In which form.
    pub form: Form,
}

/// What a name stands for in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Who listens hears it.
    Channel,
    /// A stream of about `max` entries with this field.
    Stream {
        /// The field that has the message.
        field: &'static str,
        /// About how many entries it keeps.
        max: usize,
    },
    /// A list of `max` entries, the newest first.
    List {
        /// How many entries it keeps.
        max: usize,
    },
    /// A value that stays this long.
    Key {
        /// In seconds.
        seconds: u64,
    },
}

/// Which events feed a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// All.
    All,
    /// Those that are seen as of this component.
    Component(&'static str),
    /// Those that are seen as `metric`, `performance` or `stats`.
    Metrics,
    /// Those whose word for the network observer begins with one of these.
    Observed(&'static [&'static str]),
    /// Those that have a word for the routing log.
    Routed,
    /// Those about a job.
    OfJobs,
    /// No event: the samples of the GPUs.
    Gpus,
    /// Nothing, for this reason.
    Nothing(&'static str),
}

/// The form of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `SynapticLlamas`' event.
    Log,
    /// `SynapticLlamas`' raw line.
    Raw,
    /// SOLLOL's `NetworkEvent`.
    Observer,
    /// SOLLOL's routing event.
    Routing,
    /// Our own.
    Ours,
    /// What its GPU reporter sends.
    Gpu,
}

const fn row(name: &'static str, kept: Kept, feed: Feed, form: Form) -> Row {
    Row { name, kept, feed, form }
}

/// The list that keeps the last of SOLLOL's activity.
pub(super) const OLLAMA: &[&str] = &["ollama_"];
pub(super) const RPC: &[&str] = &["rpc_", "coordinator_", "node_", "high_", "vram_", "backend_"];
const ACTIVITY: &[&str] =
    &["ollama_", "rpc_", "coordinator_", "node_", "high_", "vram_", "backend_"];

const CHANNEL: Kept = Kept::Channel;
const LONG: usize = 10_000;
const SHORT: usize = 1_000;

/// The stream of the GPU reporter.
pub const GPU_STREAM: &str = "sollol:gpu:stats";

/// How many entries [`GPU_STREAM`] keeps.
pub const GPU_STREAM_MAX: usize = SHORT;

/// The keys of the GPU reporter begin with this; the node follows.
pub const GPU_KEY: &str = "sollol:gpu:";

/// How long a key of the GPU reporter stays, in seconds.
pub const GPU_KEY_S: u64 = 120;

/// Every name that their programs read.
pub const ROWS: &[Row] = &[
    row("synapticllamas:llama_cpp:logs", CHANNEL, Feed::All, Form::Log),
    row("synapticllamas:llama_cpp:coordinator", CHANNEL, Feed::Component("coordinator"), Form::Log),
    row(
        "synapticllamas:llama_cpp:rpc_backends",
        CHANNEL,
        Feed::Component("rpc_backend"),
        Form::Log,
    ),
    row("synapticllamas:llama_cpp:metrics", CHANNEL, Feed::Metrics, Form::Log),
    row("synapticllamas:llama_cpp:raw", CHANNEL, Feed::All, Form::Raw),
    row("sollol:dashboard:ollama:activity", CHANNEL, Feed::Observed(OLLAMA), Form::Observer),
    row("sollol:dashboard:rpc:activity", CHANNEL, Feed::Observed(RPC), Form::Observer),
    row("sollol:dashboard:logs", CHANNEL, Feed::All, Form::Log),
    row("sollol:dashboard:metrics", CHANNEL, Feed::Metrics, Form::Log),
    row("sollol:routing_events", CHANNEL, Feed::Routed, Form::Routing),
    row("sollol:traces", CHANNEL, Feed::OfJobs, Form::Ours),
    row("sollol:logs:llama_cpp", CHANNEL, Feed::Component("coordinator"), Form::Raw),
    row(
        "sollol:dashboard:log_stream",
        Kept::Stream { field: "log", max: LONG },
        Feed::All,
        Form::Log,
    ),
    row(
        "sollol:dashboard:activity_stream",
        Kept::Stream { field: "activity", max: LONG },
        Feed::Observed(ACTIVITY),
        Form::Observer,
    ),
    row(
        "sollol:routing_stream",
        Kept::Stream { field: "event", max: LONG },
        Feed::Routed,
        Form::Routing,
    ),
    row(
        "sollol:dashboard:ollama:activity:history",
        Kept::List { max: SHORT },
        Feed::Observed(OLLAMA),
        Form::Observer,
    ),
    row(GPU_STREAM, Kept::Stream { field: "gpus", max: GPU_STREAM_MAX }, Feed::Gpus, Form::Gpu),
    row("sollol:gpu:<node>", Kept::Key { seconds: GPU_KEY_S }, Feed::Gpus, Form::Gpu),
    row(
        "sollol:router:metadata",
        Kept::Key { seconds: 30 },
        Feed::Nothing("their routers write it whole, and this node's would hide theirs"),
        Form::Ours,
    ),
    row(
        "sollol:rpc:node:<ip>:<port>",
        Kept::Key { seconds: 3600 },
        Feed::Nothing("it names a llama.cpp rpc-server, to which they would send layers of models"),
        Form::Ours,
    ),
];

/// How one kind of event is seen in their words.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Our component.
    pub of: &'static str,
    /// Our type.
    pub what: &'static str,
    /// `SynapticLlamas`' component: `coordinator`, `rpc_backend`, `model` or `system`.
    pub component: &'static str,
    /// `SynapticLlamas`' type.
    pub event_type: &'static str,
    /// The type of SOLLOL's network observer, if it has one.
    pub observed: Option<&'static str>,
    /// The type of SOLLOL's routing log, if it has one.
    pub routed: Option<&'static str>,
    /// SOLLOL's backend; `None` for the node's address.
    pub backend: Option<&'static str>,
}

/// `-` stands for none.
const fn seen_as(of: [&'static str; 2], log: [&'static str; 2], sollol: [&'static str; 2]) -> Seen {
    const fn word(text: &'static str) -> Option<&'static str> {
        if matches!(text.as_bytes(), b"-") { None } else { Some(text) }
    }
    Seen {
        of: of[0],
        what: of[1],
        component: log[0],
        event_type: log[1],
        observed: word(sollol[0]),
        routed: word(sollol[1]),
        backend: None,
    }
}

/// The backend under which SOLLOL's registry tells of itself.
const REGISTRY: Option<&str> = Some("rpc_registry");

/// Each kind of event: ours; `SynapticLlamas`' component and type; the observer's type and the routing log's.
pub const SEEN: &[Seen] = &[
    seen_as(
        ["node", "started"],
        ["coordinator", "start"],
        ["coordinator_start", "COORDINATOR_START"],
    ),
    seen_as(["node", "ready"], ["coordinator", "status"], ["node_status_change", "-"]),
    seen_as(["node", "not_ready"], ["coordinator", "error"], ["node_status_change", "-"]),
    seen_as(["node", "draining"], ["coordinator", "status"], ["node_status_change", "-"]),
    seen_as(
        ["node", "stopping"],
        ["coordinator", "stop"],
        ["coordinator_stop", "COORDINATOR_STOP"],
    ),
    seen_as(["job", "accepted"], ["coordinator", "request"], ["rpc_request", "TASK_QUEUED"]),
    seen_as(["job", "pulling"], ["coordinator", "status"], ["-", "-"]),
    seen_as(["job", "fetching"], ["coordinator", "status"], ["-", "-"]),
    seen_as(["job", "running"], ["coordinator", "start"], ["-", "TASK_START"]),
    seen_as(["job", "exited"], ["coordinator", "stop"], ["-", "-"]),
    seen_as(["job", "uploading"], ["coordinator", "status"], ["-", "-"]),
    seen_as(["job", "retried"], ["coordinator", "error"], ["-", "-"]),
    seen_as(["job", "interrupted"], ["coordinator", "stop"], ["-", "FALLBACK_TRIGGERED"]),
    seen_as(["job", "completed"], ["coordinator", "stop"], ["rpc_response", "TASK_COMPLETE"]),
    seen_as(["job", "failed"], ["coordinator", "error"], ["rpc_error", "TASK_COMPLETE"]),
    seen_as(["job", "cancelled"], ["coordinator", "stop"], ["rpc_response", "TASK_COMPLETE"]),
    seen_as(["job", "timed_out"], ["coordinator", "error"], ["rpc_error", "TASK_COMPLETE"]),
    seen_as(["job", "rejected"], ["coordinator", "error"], ["rpc_error", "-"]),
    seen_as(["job", "performance"], ["coordinator", "performance"], ["-", "-"]),
    seen_as(["pull", "progress"], ["model", "status"], ["-", "-"]),
    seen_as(["pull", "done"], ["model", "model_load"], ["ollama_model_load", "-"]),
    seen_as(["pull", "failed"], ["model", "error"], ["ollama_error", "-"]),
    seen_as(["chain", "registered"], ["system", "connect"], ["-", "-"]),
    seen_as(["chain", "heartbeat"], ["system", "status"], ["-", "-"]),
    seen_as(["chain", "failed"], ["system", "error"], ["-", "-"]),
    seen_as(["chain", "waits"], ["system", "error"], ["-", "-"]),
    seen_as(["gpu", "healthy"], ["rpc_backend", "connect"], ["node_status_change", "-"]),
    seen_as(["gpu", "probation"], ["rpc_backend", "status"], ["node_status_change", "-"]),
    seen_as(["gpu", "suspect"], ["rpc_backend", "error"], ["node_status_change", "-"]),
    seen_as(["gpu", "quarantined"], ["rpc_backend", "disconnect"], ["node_status_change", "-"]),
    seen_as(["gpu", "retired"], ["rpc_backend", "disconnect"], ["node_removed", "-"]),
    seen_as(["gpu", "held_idle"], ["rpc_backend", "status"], ["node_health_check", "-"]),
    seen_as(["link", "connected"], ["rpc_backend", "connect"], ["rpc_backend_connect", "-"]),
    seen_as(["link", "lost"], ["rpc_backend", "disconnect"], ["rpc_backend_disconnect", "-"]),
    seen_as(["toolkit", "safe"], ["rpc_backend", "status"], ["node_health_check", "-"]),
    seen_as(["toolkit", "unsafe"], ["rpc_backend", "error"], ["node_health_check", "-"]),
    seen_as(["toolkit", "unknown"], ["rpc_backend", "error"], ["node_health_check", "-"]),
    seen_as(["disk", "stopped"], ["coordinator", "error"], ["backend_overloaded", "-"]),
    seen_as(["hub", "silent"], ["system", "error"], ["-", "-"]),
    seen_as(["hub", "back"], ["system", "status"], ["-", "-"]),
    Seen {
        backend: REGISTRY,
        ..seen_as(
            ["registry", "heartbeat"],
            ["rpc_backend", "status"],
            ["rpc_backend_connect", "-"],
        )
    },
    seen_as(["events", "dropped"], ["system", "error"], ["-", "-"]),
    seen_as(["events", "redis"], ["system", "status"], ["-", "-"]),
    seen_as(["sidecar", "well"], ["system", "status"], ["node_status_change", "-"]),
    seen_as(["sidecar", "unknown"], ["system", "status"], ["node_status_change", "-"]),
    seen_as(["sidecar", "down"], ["system", "error"], ["node_status_change", "-"]),
    seen_as(["sidecar", "stuck"], ["system", "error"], ["node_status_change", "-"]),
    seen_as(["sidecar", "unpublished"], ["system", "error"], ["node_status_change", "-"]),
    seen_as(["sidecar", "unpaid"], ["system", "error"], ["node_status_change", "-"]),
    seen_as(["sidecar", "swarm_down"], ["system", "error"], ["node_status_change", "-"]),
    seen_as(["sidecar", "blind"], ["system", "error"], ["node_health_check", "-"]),
];

/// How this event is seen; `None` for one of a kind that the table lacks.
pub fn seen(event: &Event) -> Option<&'static Seen> {
    let (of, what) = (event.component.as_str(), event.event_type.as_str());
    SEEN.iter().find(|seen| seen.of == of && seen.what == what)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::clock::Timestamp;
    use crate::fleet::kinds;
    use crate::fleet::seed_view::feeds;
    use crate::ids::Address;

    fn told() -> impl Iterator<Item = Event> {
        let node = Address::new([1; 20]);
        kinds::ALL.iter().map(move |kind| {
            let event = Event::new(*kind, node, Timestamp::default(), "m");
            if kind.component == "job" { event.about(&"j".parse().unwrap()) } else { event }
        })
    }

    #[test]
    fn each_kind_is_seen_once_and_nothing_else_is() {
        let ours: BTreeSet<_> = kinds::ALL.iter().map(|it| (it.component, it.event_type)).collect();
        let theirs: BTreeSet<_> = SEEN.iter().map(|seen| (seen.of, seen.what)).collect();
        assert_eq!(ours, theirs);
        assert_eq!(SEEN.len(), theirs.len());
    }

    #[test]
    fn each_name_is_fed_or_says_why_not() {
        for row in ROWS {
            let fed = told().any(|event| feeds(row.feed, &event, seen(&event).unwrap()));
            let is_explained = matches!(row.feed, Feed::Nothing(_) | Feed::Gpus);
            assert!(fed != is_explained, "{}", row.name);
        }
    }

    #[test]
    fn whatever_the_observer_has_a_word_for_reaches_a_channel() {
        for event in told() {
            let seen = seen(&event).unwrap();
            let Some(word) = seen.observed else { continue };
            let channels = ROWS.iter().filter(|row| row.kept == Kept::Channel);
            let mut observing = channels.filter(|row| row.form == Form::Observer);
            assert!(observing.any(|row| feeds(row.feed, &event, seen)), "{word}");
        }
    }
}
