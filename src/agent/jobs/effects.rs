//! The agent's one seam: everything that it does to the world outside its journal, and the jobs that
//! come from there.
//!
//! `act` and `bus` are the real world; the simulation is the other one. What must hold: nothing here decides
//! anything; every call can be repeated; dropping the future of a call leaves nothing half done,
//! but for the steps that [`Step::can_be_cut_short`] excludes.

use std::future::Future;
use std::time::Duration;

use crate::bus::claims::Found as FoundClaim;
use crate::bus::{self, AckHandle, Delivery, PoolName, Settle, Target};
use crate::container::{self, Found};
use crate::ids::{Address, JobId};
use crate::job::claim::Claim;
use crate::job::phase::Event;
use crate::job::plan::Step;
use crate::job::{Job, LateResult};
use crate::journal::Outgoing;
use crate::node::presence::Presence;

/// What the agent does to the world.
pub trait Effects: Send + Sync + 'static {
    /// Performs a step of a job on this host or its store, and says what happened. Steps that are
    /// messages ([`Step::is_message`]) are made of the calls below and never come here.
    fn perform(&self, job: &Job, step: Step) -> impl Future<Output = Event> + Send;

    /// Answers for a delivery.
    fn settle(
        &self,
        delivery: &AckHandle,
        how: Settle,
    ) -> impl Future<Output = Result<(), bus::Error>> + Send;

    /// Tells the world a status. Statuses of several jobs may be on their way at a time.
    fn say(&self, status: &Outgoing) -> impl Future<Output = Result<(), bus::Error>> + Send;

    /// Tells the world that an output was published after its job's end was told.
    fn say_late(&self, result: &LateResult) -> impl Future<Output = Result<(), bus::Error>> + Send;

    /// Returns once everything that was said is on its way to whoever listens.
    fn said(&self) -> impl Future<Output = Result<(), bus::Error>> + Send;

    /// Whether the queue of this source still holds the job's message, which was delivered so;
    /// `true` where nobody can tell.
    fn is_queued(
        &self,
        delivery: &AckHandle,
        source: &Target,
        job: &JobId,
    ) -> impl Future<Output = Result<bool, bus::Error>> + Send;

    /// Puts a message aside that could not be run; `id` makes a repeat harmless.
    fn bury(
        &self,
        target: &Target,
        body: Vec<u8>,
        id: &str,
    ) -> impl Future<Output = Result<(), bus::Error>> + Send;

    /// Who has a job of a pool. `None` where nobody has, or where nobody can know: without
    /// `JetStream`.
    fn claim(
        &self,
        pool: &PoolName,
        job: &JobId,
    ) -> impl Future<Output = Result<Option<FoundClaim>, bus::Error>> + Send;

    /// Writes a claim in the place of what was found; `false` where somebody was faster.
    fn put_claim(
        &self,
        pool: &PoolName,
        job: &JobId,
        claim: &Claim,
        over: Option<u64>,
    ) -> impl Future<Output = Result<bool, bus::Error>> + Send;

    /// Asks the agent that holds a job's claim whether it is at work on it. Where it answers that it
    /// is: for how long it goes on though it hears nothing of the server.
    fn keeps(&self, holder: Address, job: &JobId) -> impl Future<Output = Option<Duration>> + Send;

    /// How long the server waits for a sign of life of what this delivery's consumer gives out: its
    /// administrator may have changed it.
    fn ack_wait(
        &self,
        delivery: &AckHandle,
    ) -> impl Future<Output = Result<Duration, bus::Error>> + Send;
    /// The nodes that serve a pool and are there now, this one too, by their own word.
    fn neighbours(
        &self,
        pool: &PoolName,
    ) -> impl Future<Output = Result<Vec<Presence>, bus::Error>> + Send;

    /// Every container of this node, running or not.
    fn containers(&self) -> impl Future<Output = Result<Vec<Found>, container::Error>> + Send;

    /// Removes a container, running or not.
    fn discard(
        &self,
        container: &Found,
    ) -> impl Future<Output = Result<(), container::Error>> + Send;

    /// Removes a container that was never started. Says whether it is gone: one that runs by now stays.
    fn withdraw(
        &self,
        container: &Found,
    ) -> impl Future<Output = Result<bool, container::Error>> + Send;

    /// Whether the host has been up since the job's inputs were fetched: else what was not synced is
    /// gone, or cut short.
    fn remembers(&self, job: &Job) -> bool;

    /// Removes the folder of a job that is done, and nothing else of it.
    fn remove_folder(&self, job: &Job) -> impl Future<Output = std::io::Result<()>> + Send;

    /// Removes the folders of all jobs but these. Says how many went.
    fn sweep(&self, keep: &[JobId]) -> impl Future<Output = std::io::Result<usize>> + Send;
}

/// The jobs of one source, as they come.
pub trait Deliveries: Send {
    /// The next one; at most `room` are asked for ahead. Can be dropped at any point without loss.
    fn next(&mut self, room: usize) -> impl Future<Output = Result<Delivery, bus::Error>> + Send;

    /// Asks for no more, and gives back what came but was never handed out.
    fn close(self) -> impl Future<Output = ()> + Send;
}

impl Deliveries for bus::Intake {
    async fn next(&mut self, room: usize) -> Result<Delivery, bus::Error> {
        Self::next(self, room).await
    }

    async fn close(self) {
        Self::close(self).await;
    }
}
