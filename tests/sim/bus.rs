//! The bus as a simulated agent reaches it. A call or its answer may be lost or cut off, or the call may
//! take effect long after the agent gave it up.

use std::time::Duration;

use lamda_node::bus::{self, AckHandle, Found as FoundClaim, PoolName, Settle};
use lamda_node::clock::Clock as _;
use lamda_node::ids::JobId;
use lamda_node::job::claim::{Claim, State as ClaimState};
use lamda_node::journal::Outgoing;

use super::effects::Simulated;
use super::plant::Plant;
use super::world::{AMENDS_MS, Cut};
use super::{check, held};

/// How long a request without an answer is waited for.
const ANSWER: Duration = Duration::from_secs(5);

/// The most by which a call takes effect late, in milliseconds.
const LATE_MS: u64 = 20_000;

impl Simulated {
    /// Whether the host is cut off from the bus in this direction.
    fn is_cut(&self, one_way: Cut) -> bool {
        let ms = self.world.time.ms();
        let cut = self.world.state().hosts[self.host].cut;
        cut.is_some_and(|(cut, until)| until > ms && (cut == Cut::Both || cut == one_way))
    }

    /// Makes one call to the bus. The call or its answer may be lost, and the call may take effect late,
    /// after its process gave up or died.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Self) -> Result<T, bus::Error> + Send + 'static,
    ) -> Result<T, bus::Error> {
        let lost = || Err(bus::Error::Timeout { what: "simulated" });
        self.pass(20).await;
        let ms = self.world.time.ms();
        if self.world.state().queue.away_until_ms > ms {
            return Err(bus::Error::Disconnected { server: "simulated".to_owned() });
        }
        if self.world.state().queue.leaderless_until_ms > ms {
            let (what, source) = ("simulated", "nobody leads".into());
            return Err(bus::Error::Leaderless { what, source });
        }
        if self.is_cut(Cut::Mute) {
            self.clock().sleep(ANSWER).await;
            self.alive().await;
            return lost();
        }
        if self.world.happens(|weather| weather.bus) {
            return lost();
        }
        if self.world.happens(|weather| weather.late) {
            let me = self.clone();
            self.world.later(self.world.roll(LATE_MS), None, move || {
                act(&me).ok();
            });
            if self.world.roll(2) == 0 {
                self.world.kill(self.host, false);
            }
            self.clock().sleep(ANSWER).await;
            self.alive().await;
            return lost();
        }
        let answer = act(self);
        self.pass(20).await;
        if self.is_cut(Cut::Deaf) {
            self.clock().sleep(ANSWER).await;
            self.alive().await;
            return lost();
        }
        if self.world.happens(|weather| weather.bus) {
            return lost();
        }
        answer
    }

    pub(super) async fn answer(&self, delivery: &AckHandle, how: Settle) -> Result<(), bus::Error> {
        let how = match how {
            Settle::Progress if self.world.has(Plant::GivesBackWhatItHolds) => {
                Settle::Nak(Duration::ZERO)
            }
            Settle::Progress if self.world.has(Plant::LetsLeasesRunOut) => return Ok(()),
            Settle::Nak(_) if self.world.has(Plant::AcksWhatItLeaves) => Settle::Ack,
            how => how,
        };
        let delivery = delivery.clone();
        self.call(move |me| me.arrives(&delivery, how)).await
    }

    /// The server receives an ack, a nak or a progress report for a delivery.
    fn arrives(&self, delivery: &AckHandle, how: Settle) -> Result<(), bus::Error> {
        let ms = self.world.time.ms();
        let mut state = self.world.state();
        if state.queue.created_ns != delivery.stream_created_ns {
            return Err(bus::Error::StaleAck { stream: "JOBS".to_owned() });
        }
        let seq = delivery.stream_seq;
        let Some(message) = state.queue.messages.get(&seq).cloned() else { return Ok(()) };
        let ack_wait_ms = state.queue.ack_wait_ms(&message.target);
        let free_at_ms = match how {
            Settle::Ack => {
                state.queue.messages.remove(&seq);
                drop(state);
                self.note(|| format!("acknowledges {seq}"));
                check::may_acknowledge(&self.world, self.host, &message, delivery);
                held::left_nothing(&self.world, self.host, &message);
                return Ok(());
            }
            // The server accepts a nak even for an outdated delivery.
            Settle::Nak(delay) => {
                if delivery.delivered != message.delivered
                    && let Some(job) = message.job()
                {
                    state.disturb(job, ms + AMENDS_MS);
                }
                ms + u64::try_from(delay.as_millis()).unwrap_or(0)
            }
            Settle::Progress => ms + ack_wait_ms,
        };
        if let Some(message) = state.queue.messages.get_mut(&seq) {
            message.free_at_ms = free_at_ms;
            if how != Settle::Progress {
                message.held_by = None;
            }
        }
        drop(state);
        if let Settle::Nak(delay) = how {
            held::was_given_back(&self.world, self.host, &message, delivery);
            self.note(|| format!("gives {seq} back for {delay:?}"));
            self.world.queued.notify_waiters();
        }
        Ok(())
    }

    pub(super) async fn tell(&self, status: &Outgoing) -> Result<(), bus::Error> {
        let of = status.clone();
        let said = self.call(move |me| {
            me.note(|| format!("says {} {}", of.job_id, String::from_utf8_lossy(&of.body)));
            check::hear(&me.world, me.host, &of);
            Ok(())
        });
        let said = said.await;
        if self.world.has(Plant::SaysOnce) { Ok(()) } else { said }
    }

    pub(super) async fn put_aside(&self, body: Vec<u8>) -> Result<(), bus::Error> {
        if self.world.has(Plant::BuriesNothing) {
            return Ok(());
        }
        self.call(move |me| {
            let letter = serde_json::from_slice(&body).expect("a dead letter is JSON");
            me.world.state().dead.push(letter);
            Ok(())
        })
        .await
    }

    pub(super) async fn read_claim(
        &self,
        pool: &PoolName,
        job: &JobId,
    ) -> Result<Option<FoundClaim>, bus::Error> {
        let key = (pool.clone(), job.clone());
        self.call(move |me| {
            let state = me.world.state();
            Ok(state.claims.get(&key).map(|(claim, revision)| {
                let mut claim = *claim;
                if state.plant == Plant::TakesAnyBody
                    && let Some(mine) = state.hosts[me.host].asks.get(&key.1)
                {
                    claim.spec_hash = *mine;
                }
                FoundClaim { claim, revision: *revision }
            }))
        })
        .await
    }

    pub(super) async fn write_claim(
        &self,
        pool: &PoolName,
        job: &JobId,
        claim: Claim,
        over: Option<u64>,
    ) -> Result<bool, bus::Error> {
        let left_out = match claim.state {
            ClaimState::Claimed => Plant::StartsUnclaimed,
            ClaimState::Done => Plant::EndsUnclaimed,
            ClaimState::Refused => Plant::KeepsTheClaim,
        };
        if self.world.has(left_out) {
            return Ok(true);
        }
        let key = (pool.clone(), job.clone());
        self.call(move |me| {
            let mut state = me.world.state();
            let before = state.claims.get(&key).copied();
            if before.map(|(_, revision)| revision) != over {
                return Ok(false);
            }
            state.revision += 1;
            let revision = state.revision;
            let starts = state.starts.entry(key.1.clone()).or_default();
            let of_before = before.map_or(0, |(before, _)| before.starts);
            if claim.state == ClaimState::Claimed && claim.starts > of_before {
                starts.insert((claim.agent, claim.attempt));
            } else if claim.starts < of_before {
                starts.remove(&(claim.agent, claim.attempt));
            }
            state.claims.insert(key, (claim, revision));
            drop(state);
            me.note(|| format!("claims {}", claim.to_json()));
            Ok(true)
        })
        .await
    }
}
