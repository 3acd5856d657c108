//! All that a node or a watcher can say: the component, the type and the level of each event (docs/protocol.md, "Events").
//!
//! Must hold: no two kinds have the same component and type; a kind is never renamed.

use super::event::{Kind, Level};

macro_rules! kinds {
    ($($name:ident = $component:literal, $event_type:literal, $level:ident, $says:literal;)*) => {
        $(
            #[doc = $says]
            pub const $name: Kind = Kind::new($component, $event_type, Level::$level, $says);
        )*

        /// All kinds, in the order of the table in docs/protocol.md.
        pub const ALL: &[Kind] = &[$($name),*];
    };
}

kinds! {
    NODE_STARTED = "node", "started", Info, "The node begins to work.";
    NODE_READY = "node", "ready", Info, "The node takes jobs again.";
    NODE_NOT_READY = "node", "not_ready", Warning, "The node takes no job, and why.";
    NODE_DRAINING = "node", "draining", Info, "The node was asked to take no more jobs.";
    NODE_STOPPING = "node", "stopping", Info, "The node winds down.";
    JOB_ACCEPTED = "job", "accepted", Info, "A job is in the node's journal.";
    JOB_PULLING = "job", "pulling", Info, "A job waits for its image.";
    JOB_FETCHING = "job", "fetching", Info, "A job's inputs are fetched.";
    JOB_RUNNING = "job", "running", Info, "A job's container runs.";
    JOB_EXITED = "job", "exited", Info, "A job's processes are gone.";
    JOB_UPLOADING = "job", "uploading", Info, "A job's output is published.";
    JOB_RETRIED = "job", "retried", Warning, "A step of a job failed; the job goes on.";
    JOB_INTERRUPTED = "job", "interrupted", Warning, "A job was stopped by the node and will run again.";
    JOB_COMPLETED = "job", "completed", Info, "A job has succeeded.";
    JOB_FAILED = "job", "failed", Error, "A job has failed.";
    JOB_CANCELLED = "job", "cancelled", Info, "A job was cancelled.";
    JOB_TIMED_OUT = "job", "timed_out", Warning, "A job's time or deadline is over.";
    JOB_REJECTED = "job", "rejected", Warning, "A job was refused before it began.";
    JOB_PERFORMANCE = "job", "performance", Info, "How long each part of a job took, in milliseconds.";
    PULL_PROGRESS = "pull", "progress", Debug, "How far the pull of an image is.";
    PULL_DONE = "pull", "done", Info, "An image is on this host.";
    PULL_FAILED = "pull", "failed", Warning, "An image could not be pulled.";
    CHAIN_REGISTERED = "chain", "registered", Info, "The contract knows the node.";
    CHAIN_HEARTBEAT = "chain", "heartbeat", Info, "A heartbeat is in a block, with the receipts that it commits.";
    CHAIN_FAILED = "chain", "failed", Warning, "A transaction failed.";
    CHAIN_WAITS = "chain", "waits", Warning, "No transaction can be sent now, and why.";
    GPU_HEALTHY = "gpu", "healthy", Info, "A GPU is well.";
    GPU_PROBATION = "gpu", "probation", Info, "A GPU is on probation.";
    GPU_SUSPECT = "gpu", "suspect", Warning, "A GPU may be defective.";
    GPU_QUARANTINED = "gpu", "quarantined", Warning, "A GPU is set aside.";
    GPU_RETIRED = "gpu", "retired", Error, "A GPU is set aside for good.";
    GPU_HELD_IDLE = "gpu", "held_idle", Warning, "A job holds GPUs and does nothing on them.";
    LINK_CONNECTED = "link", "connected", Info, "The node is connected to NATS.";
    LINK_LOST = "link", "lost", Warning, "The connection to NATS is gone.";
    TOOLKIT_SAFE = "toolkit", "safe", Info, "NVIDIA's container toolkit has no known way out.";
    TOOLKIT_UNSAFE = "toolkit", "unsafe", Warning, "NVIDIA's container toolkit lets programs out.";
    TOOLKIT_UNKNOWN = "toolkit", "unknown", Warning, "The version of NVIDIA's container toolkit is not known.";
    DISK_STOPPED = "disk", "stopped", Warning, "A job is stopped for what it has written.";
    HUB_SILENT = "hub", "silent", Warning, "The hub has taken no beat of the node for three minutes, and why.";
    HUB_BACK = "hub", "back", Info, "The hub takes the node's beats again.";
    REGISTRY_HEARTBEAT = "registry", "heartbeat", Info, "Which of the services that the node leans on answer.";
    EVENTS_DROPPED = "events", "dropped", Warning, "Events were dropped while a sink was away.";
    EVENTS_REDIS = "events", "redis", Info, "The Redis sink was turned on or off.";
    SIDECAR_WELL = "sidecar", "well", Info, "A watched program is there, and nothing is wrong with it.";
    SIDECAR_UNKNOWN = "sidecar", "unknown", Info, "Nobody can say yet whether a watched program is there.";
    SIDECAR_DOWN = "sidecar", "down", Error, "A watched program is not there.";
    SIDECAR_STUCK = "sidecar", "stuck", Error, "A watched program does not do its work.";
    SIDECAR_UNPUBLISHED = "sidecar", "unpublished", Warning, "The peers of a watched program have nothing of it.";
    SIDECAR_UNPAID = "sidecar", "unpaid", Warning, "A watched program was not paid in time.";
    SIDECAR_SWARM_DOWN = "sidecar", "swarm_down", Warning, "Nobody of a watched program's swarm goes on.";
    SIDECAR_BLIND = "sidecar", "blind", Warning, "A source of what is known of a watched program can't be asked.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_kinds_are_told_alike() {
        let names: BTreeSet<_> = ALL.iter().map(|kind| (kind.component, kind.event_type)).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
