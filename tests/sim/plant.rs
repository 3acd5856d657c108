//! The tests of the test: defects that somebody could write, planted one at a time.
//!
//! A write of the journal is left out, or a thing that the agent asks of the world is done
//! otherwise than it was asked. All of it happens at the seam, so that no line of the agent knows.
//! What must hold: each of them is found by a promise that it breaks.

/// What is wrong with the agent of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plant {
    /// Nothing.
    Nothing,
    /// Nothing, and it is looked at as closely as where there is something.
    Watched,
    /// The journal's write of this name is answered, and never carried out.
    Forgets(&'static str),
    /// What must survive a power cut is written like all else.
    WritesUnsynced,
    /// Statuses are read, and said, before what they rest on is synced.
    ReadsUnsynced,
    /// A pool's job is started without its claim.
    StartsUnclaimed,
    /// A pool's job is ended without its claim.
    EndsUnclaimed,
    /// A job is given back, and its claim is not.
    KeepsTheClaim,
    /// Whether the claim is of this very body is not looked at.
    TakesAnyBody,
    /// Recovery sees no container that is there.
    SeesNoContainers,
    /// Recovery takes a container for one that was never started.
    TakesAllForNew,
    /// A container that ended is started again.
    StartsWhatEnded,
    /// A container is started after its deadline.
    StartsLate,
    /// The delivery is acknowledged as soon as the container runs.
    AcksEarly,
    /// A delivery is given back instead of held.
    GivesBackWhatItHolds,
    /// No lease is ever renewed.
    LetsLeasesRunOut,
    /// What is left to others is taken off the queue.
    AcksWhatItLeaves,
    /// A status that did not arrive counts as said.
    SaysOnce,
    /// A container counts as ended once it was asked to.
    FreesCardsEarly,
    /// A run's last moment is not looked at.
    IgnoresTime,
    /// What was fetched before a power cut counts as whole.
    TrustsItsInputs,
    /// The folders of jobs in hand are swept away.
    SweepsEverything,
    /// An output counts as sealed before it is synced.
    SealsUnsynced,
    /// What the node stopped counts as ended by itself.
    TakesAStopForAnEnd,
    /// What a power cut ended counts as ended by itself.
    TakesAPowerCutForAnEnd,
    /// What could not be run is not put aside.
    BuriesNothing,
    /// Containers stay where they are.
    RemovesNothing,
    /// What waits is never looked for in its queue.
    BelievesInItsQueue,
}

/// Every named write that a job's life makes.
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

/// Every other defect.
pub(crate) const DEFECTS: [Plant; 25] = [
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
];
