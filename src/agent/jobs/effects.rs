//! The agent's one seam: everything it does to the world outside its journal, and the jobs it
//! receives from there.
//!
//! `act` and `bus` implement it for the real world; the simulation is the other implementation.
//! Invariants: nothing here makes a decision. Every call is repeatable. Dropping the future of a
//! call leaves nothing half done, except for the steps that [`Step::can_be_cut_short`] excludes.

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

/// The actions of the agent on the bus, the container engine and the disk.
pub trait Effects: Send + Sync + 'static {
    /// Performs a step of a job on this host or its store and returns what happened. Steps that are
    /// messages ([`Step::is_message`]) are built from the calls below and are never passed here.
    fn perform(&self, job: &Job, step: Step) -> impl Future<Output = Event> + Send;

    /// Acknowledges a delivery, gives it back or extends its lease.
    fn settle(
        &self,
        delivery: &AckHandle,
        how: Settle,
    ) -> impl Future<Output = Result<(), bus::Error>> + Send;

    /// Publishes a status. Statuses of several jobs may be in flight at the same time.
    fn say(&self, status: &Outgoing) -> impl Future<Output = Result<(), bus::Error>> + Send;

    /// Publishes that an output was uploaded after its job's terminal status was sent.
    fn say_late(&self, result: &LateResult) -> impl Future<Output = Result<(), bus::Error>> + Send;

    /// Flushes: returns once everything published so far has left for the server.
    fn said(&self) -> impl Future<Output = Result<(), bus::Error>> + Send;

    /// Whether the queue of this source still holds the job's message, which came as `delivery`;
    /// `true` if that can't be determined.
    fn is_queued(
        &self,
        delivery: &AckHandle,
        source: &Target,
        job: &JobId,
    ) -> impl Future<Output = Result<bool, bus::Error>> + Send;

    /// Publishes a job that could not be run as a dead letter; `id` deduplicates repeated calls.
    fn bury(
        &self,
        target: &Target,
        body: Vec<u8>,
        id: &str,
    ) -> impl Future<Output = Result<(), bus::Error>> + Send;

    /// Reads the claim on a pool's job. `None` if there is none, or if claims can't exist because
    /// the bus works without `JetStream`.
    fn claim(
        &self,
        pool: &PoolName,
        job: &JobId,
    ) -> impl Future<Output = Result<Option<FoundClaim>, bus::Error>> + Send;

    /// Writes a claim over the revision `over` (`None`: no claim was found); `false` if another
    /// writer was faster.
    fn put_claim(
        &self,
        pool: &PoolName,
        job: &JobId,
        claim: &Claim,
        over: Option<u64>,
    ) -> impl Future<Output = Result<bool, bus::Error>> + Send;

    /// Asks the agent that holds a job's claim whether it is working on the job. If it proves that,
    /// returns how long it would go on without hearing from the server.
    fn keeps(&self, holder: Address, job: &JobId) -> impl Future<Output = Option<Duration>> + Send;

    /// Reads the ack wait of this delivery's consumer from the server: its administrator may have
    /// changed it.
    fn ack_wait(
        &self,
        delivery: &AckHandle,
    ) -> impl Future<Output = Result<Duration, bus::Error>> + Send;

    /// The nodes that currently serve a pool, this one included, as they describe themselves.
    fn neighbours(
        &self,
        pool: &PoolName,
    ) -> impl Future<Output = Result<Vec<Presence>, bus::Error>> + Send;

    /// Lists every container of this node, running or not.
    fn containers(&self) -> impl Future<Output = Result<Vec<Found>, container::Error>> + Send;

    /// Removes a container, running or not.
    fn discard(
        &self,
        container: &Found,
    ) -> impl Future<Output = Result<(), container::Error>> + Send;

    /// Removes a container that was never started. Returns whether it is gone: one that has been
    /// started meanwhile stays.
    fn withdraw(
        &self,
        container: &Found,
    ) -> impl Future<Output = Result<bool, container::Error>> + Send;

    /// Whether the host has been up since the job's inputs were fetched: otherwise unsynced files
    /// may be missing or truncated.
    fn remembers(&self, job: &Job) -> bool;

    /// What jobs can ever fill of this node's disks, in MiB, when nothing else is on them.
    fn disk_max_mib(&self) -> impl Future<Output = u64> + Send;

    /// Removes the folder of a finished job, but not its container.
    fn remove_folder(&self, job: &Job) -> impl Future<Output = std::io::Result<()>> + Send;

    /// Removes the folders of all jobs except these. Returns how many were removed.
    fn sweep(&self, keep: &[JobId]) -> impl Future<Output = std::io::Result<usize>> + Send;
}

/// The incoming deliveries of one source.
pub trait Deliveries: Send {
    /// Waits for the next delivery; requests at most `room` from the server. Cancel-safe: dropping
    /// the future loses no delivery.
    fn next(&mut self, room: usize) -> impl Future<Output = Result<Delivery, bus::Error>> + Send;

    /// Requests no more, and gives back the deliveries that `next` has not returned.
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
