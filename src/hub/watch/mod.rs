//! Looks at all nodes each second, and at once when something was told: how they stand, and what follows from the
//! rules.
//!
//! Invariants: a standing and a decision are written down before the pages show them or anybody is told. If the
//! database fails, nothing is told, and the next look decides the same again.

mod facts;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::api::stream::Live;
use super::fleet::{Fleet, Node};
use super::happened::Happened;
use super::odd::Odd;
use super::store::{self, Store};
use crate::clock::{Clock, Timestamp};
use crate::fleet::alerts::{Alerts, Policy, Silence};
use crate::fleet::clocks::{Listening, Patience, Standing, silent_since, standing};
use crate::fleet::rule::Rule;
use crate::notify::Outbox;
use crate::seldom::Seldom;
use crate::supervise::Failure;

/// How often it looks at the nodes.
const EVERY: Duration = Duration::from_secs(1);

/// The shortest time between two looks: what is told in between is looked at together.
const GATHER: Duration = Duration::from_millis(100);

/// A pause between two looks after which nothing is known of what was said meanwhile: the machine slept, its clock
/// was set, or the database failed.
const GAP: Duration = Duration::from_secs(15);

/// Most standings that are written in one commit.
const AT_ONCE_MAX: usize = 1_000;

/// Looks at nodes and decides who is told. One service.
#[derive(Debug)]
pub struct Watcher<C> {
    /// The database.
    pub store: Store,
    /// The nodes.
    pub fleet: Fleet,
    /// What somebody wants to know.
    pub rules: Arc<Vec<Rule>>,
    /// How they want to be told.
    pub policy: Policy,
    /// How long each clock may be silent.
    pub patience: Patience,
    /// What is listened to, and since when.
    pub listening: Arc<watch::Sender<Listening>>,
    /// What nodes told lately.
    pub happened: Happened,
    /// What is odd about jobs.
    pub odd: Odd,
    /// The silences; a new value replaces them.
    pub silences: watch::Receiver<Vec<Silence>>,
    /// The channels that are set.
    pub channels: Vec<&'static str>,
    /// Asks for a look at once.
    pub poke: Arc<Notify>,
    /// Told when notices were queued.
    pub outbox: Outbox,
    /// Told when something about alerts is new.
    pub live: Live,
    /// The clock.
    pub clock: C,
}

/// What a watcher remembers between two looks and doesn't need after a restart.
#[derive(Debug, Default)]
struct Memory {
    /// Since when the conditions of rules hold that have no time of their own, by rule and node.
    since: BTreeMap<(String, String), Timestamp>,
}

impl<C: Clock> Watcher<C> {
    /// Looks until it is aborted.
    pub async fn run(self: Arc<Self>) -> Result<(), Failure> {
        let again = |err: store::Error| {
            Failure::again(
                err,
                "look at the disk of DB_PATH; until then nobody is told of anything",
            )
        };
        let mut alerts = self
            .store
            .book()
            .alerts(&self.policy, self.clock.now())
            .await
            .map_err(|err| again(err.into()))?;
        let (mut memory, mut silences) = (Memory::default(), self.silences.clone());
        let slow = Seldom::new(1);
        // After a failure of its own it knows as little as after a start.
        let mut last = self.clock.now();
        self.listen_anew(last);
        loop {
            if silences.has_changed().unwrap_or_default() {
                alerts.set_silences(silences.borrow_and_update().clone());
            }
            let began = self.clock.now();
            let is_gap = began < last || began.since(last) > GAP;
            if is_gap {
                self.listen_anew(began);
            }
            last = began;
            self.stand().await.map_err(again)?;
            self.decide(&mut alerts, &mut memory).await.map_err(again)?;
            let took = self.clock.now().since(began);
            if took > EVERY
                && let Some(more) = slow.line()
            {
                tracing::warn!("a look at {} nodes took {took:?}{more}", self.fleet.len());
            }
            self.clock.sleep(GATHER).await;
            tokio::select! {
                () = self.poke.notified() => {}
                () = self.clock.sleep(EVERY.saturating_sub(GATHER)) => {}
            }
        }
    }

    /// From now on what is not heard counts as silent after its patience; what was heard in a future that is none any
    /// more was heard now.
    fn listen_anew(&self, now: Timestamp) {
        self.listening.send_modify(|listening| {
            listening.own = now;
            listening.nats = listening.nats.map(|_| now);
        });
        let ahead = |at: Option<Timestamp>| at.is_some_and(|at| at > now);
        for node in self.fleet.all() {
            let clash = node.heard.clash.as_ref().map(|clash| clash.at);
            let clocks = [node.heard.own, node.heard.nats, node.heard.chain, clash];
            if clocks.into_iter().any(ahead) {
                self.fleet.update_if_known(&node.name, |node| {
                    let heard = &mut node.heard;
                    for at in [&mut heard.own, &mut heard.nats, &mut heard.chain] {
                        *at = at.map(|at| at.min(now));
                    }
                    if let Some(clash) = &mut heard.clash {
                        clash.at = clash.at.min(now);
                    }
                });
            }
        }
    }

    /// Notes how nodes stand, where that changed.
    async fn stand(&self) -> Result<(), store::Error> {
        let (now, listening) = (self.clock.now(), *self.listening.borrow());
        let nodes = self.fleet.all();
        let mut changed: Vec<_> =
            nodes.iter().filter_map(|node| self.changed(node, &listening, now)).collect();
        while !changed.is_empty() {
            let rest = changed.split_off(changed.len().min(AT_ONCE_MAX));
            let (fleet, all) = (self.fleet.clone(), changed.clone());
            let then = move |(): &()| {
                for stands in all {
                    fleet.update_if_known(&stands.name, |node| {
                        node.standing = stands.standing;
                        node.standing_since = stands.since;
                        node.why = stands.why;
                    });
                }
            };
            self.store.stand(std::mem::replace(&mut changed, rest), then).await?;
        }
        Ok(())
    }

    fn changed(&self, node: &Node, listening: &Listening, now: Timestamp) -> Option<store::Stands> {
        let (found, why) = standing(&node.heard, &self.patience, listening, now);
        if found == node.standing {
            return None;
        }
        let since = match found {
            Standing::Down if !node.heard.says_down => silent_since(&node.heard, &self.patience)
                .filter(|since| *since < now)
                .unwrap_or(now),
            _ => now,
        };
        // History is in order, also where nobody looked meanwhile.
        let since = since.max(node.standing_since).min(now);
        Some(store::Stands { name: node.name.clone(), standing: found, since, why })
    }

    async fn decide(&self, alerts: &mut Alerts, memory: &mut Memory) -> Result<(), store::Error> {
        let now = self.clock.now();
        let nodes = self.fleet.all();
        let odd = self.odd.found();
        let facts: Vec<_> = self
            .rules
            .iter()
            .map(|rule| facts::of(rule, &nodes, (&self.happened, &odd), memory, alerts, now))
            .collect();
        let decision = alerts.decide(&self.rules, &facts, &self.policy, now);
        if decision.is_empty() {
            return Ok(());
        }
        for notice in &decision.notices {
            tracing::info!(incident = notice.incident, rule = notice.rule, "{}", notice.title);
        }
        self.store.book().decided(decision.clone(), self.channels.clone()).await?;
        alerts.apply(&decision, &self.policy, now);
        self.live.alerts();
        if !decision.notices.is_empty() {
            self.outbox.poke();
        }
        Ok(())
    }
}
