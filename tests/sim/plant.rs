//! Tests of the checks: plausible defects of an agent, planted one at a time.
//!
//! A plant skips a write of the journal, or makes the simulated world do something other than what the
//! agent asked for. It acts at the seam of docs/adr/0014-one-seam.md, without a line in the agent. Must
//! hold: each plant breaks a promise, and a check finds it.

/// The defect that a day's agents have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plant {
    /// No defect.
    Nothing,
    /// No defect, but each step is compared with the journal, as on a day with a defect.
    Watched,
    /// The journal's write of this name reports success and is not carried out.
    Forgets(&'static str),
    /// Durable writes are not synced.
    WritesUnsynced,
    /// Statuses are read and published before the commits that they rest on are synced.
    ReadsUnsynced,
    /// A pool's job starts, but its claim is not written.
    StartsUnclaimed,
    /// A pool's job ends, but its claim is not marked as done.
    EndsUnclaimed,
    /// A pool's job is given back, but its claim is not released.
    KeepsTheClaim,
    /// A claim is accepted even if it was written for another body under the same id.
    TakesAnyBody,
    /// Recovery finds no containers.
    SeesNoContainers,
    /// Recovery treats every container as created but never started.
    TakesAllForNew,
    /// A container that has exited is started again.
    StartsWhatEnded,
    /// A container is started after the job's deadline.
    StartsLate,
    /// The delivery is acknowledged as soon as the container runs.
    AcksEarly,
    /// A nak is sent instead of a renewal of the lease.
    GivesBackWhatItHolds,
    /// No lease is renewed.
    LetsLeasesRunOut,
    /// An ack is sent instead of a nak, so a job left to others leaves the queue.
    AcksWhatItLeaves,
    /// A status whose publish failed counts as published.
    SaysOnce,
    /// A container counts as exited as soon as it was asked to stop.
    FreesCardsEarly,
    /// A run is not stopped when its time is up.
    IgnoresTime,
    /// Inputs fetched before a power cut count as complete.
    TrustsItsInputs,
    /// The sweep also removes the folders of jobs in hand.
    SweepsEverything,
    /// An output counts as sealed without being synced.
    SealsUnsynced,
    /// A container that the node stopped counts as ended by itself.
    TakesAStopForAnEnd,
    /// A container that a power cut ended counts as ended by itself.
    TakesAPowerCutForAnEnd,
    /// Dead letters are not published.
    BuriesNothing,
    /// Containers are not removed.
    RemovesNothing,
    /// A waiting job's message counts as still queued without a look.
    BelievesInItsQueue,
    /// A shutdown stops running jobs at once.
    StopsWithoutGrace,
    /// A shutdown leaves running jobs alone although they are to be given back.
    LeavesWhatRuns,
}

/// The journal's named writes that are skipped. `every_write_of_the_agent_is_planted` has the exceptions.
pub(crate) const WRITES: [&str; 25] = [
    "admit",
    "refuse",
    "redelivered",
    "sent",
    "send_again",
    "accepted",
    "pulled",
    "ready",
    "claiming",
    "starting",
    "running",
    "stopping",
    "exited",
    "collected",
    "published",
    "concluding",
    "ended",
    "cleaned",
    "buried",
    "settled",
    "interrupted",
    "handing_back",
    "yielded",
    "waiting",
    "ended_elsewhere",
];

/// All other defects.
pub(crate) const DEFECTS: [Plant; 27] = [
    Plant::WritesUnsynced,
    Plant::ReadsUnsynced,
    Plant::StartsUnclaimed,
    Plant::EndsUnclaimed,
    Plant::KeepsTheClaim,
    Plant::TakesAnyBody,
    Plant::SeesNoContainers,
    Plant::TakesAllForNew,
    Plant::StartsWhatEnded,
    Plant::StartsLate,
    Plant::AcksEarly,
    Plant::GivesBackWhatItHolds,
    Plant::LetsLeasesRunOut,
    Plant::AcksWhatItLeaves,
    Plant::SaysOnce,
    Plant::FreesCardsEarly,
    Plant::IgnoresTime,
    Plant::TrustsItsInputs,
    Plant::SweepsEverything,
    Plant::SealsUnsynced,
    Plant::TakesAStopForAnEnd,
    Plant::TakesAPowerCutForAnEnd,
    Plant::BuriesNothing,
    Plant::RemovesNothing,
    Plant::BelievesInItsQueue,
    Plant::StopsWithoutGrace,
    Plant::LeavesWhatRuns,
];
