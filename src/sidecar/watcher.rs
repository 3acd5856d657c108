//! Judges all programs each second, and at once when something was observed: the verdicts, and who is told of them.
//!
//! Invariants: a verdict that differs, and a decision, are written down before anybody sees or hears of them. If the
//! database fails, nothing is told, and the next look decides the same again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::program::Program;
use super::report::nats::Teller;
use super::store::{Error, Store};
use super::used::Board;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::fleet::alerts::{Alerts, Fact, Facts, Policy};
use crate::fleet::rule::{Condition, Rule, Trouble};
use crate::notify::Outbox;
use crate::supervise::Failure;
use crate::watch::observation::Seen;
use crate::watch::rules;
use crate::watch::verdict::{Verdict, verdict};

/// How often programs are judged.
const EVERY: Duration = Duration::from_secs(1);

/// The shortest time between two looks: what is observed in between is looked at together.
const GATHER: Duration = Duration::from_millis(100);

/// A pause between two looks after which nothing is known of what happened meanwhile: the machine slept, its clock
/// was set, or the database failed.
const GAP: Duration = Duration::from_mins(1);

/// So far a clock may be set back without more: observations stay in order.
const STEP: Duration = Duration::from_secs(5);

const REMEDY: &str = "look at the disk under SIDECAR_DB; until then nobody is told of anything";

/// The newest verdicts, by program. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Verdicts(Arc<Mutex<BTreeMap<String, Arc<Verdict>>>>);

impl Verdicts {
    /// The verdict on a program.
    pub fn of(&self, name: &str) -> Option<Arc<Verdict>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Whether anything was judged yet.
    fn is_some(&self) -> bool {
        !self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn set(&self, name: &str, verdict: Arc<Verdict>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(name.to_owned(), verdict);
    }
}

/// Judges and decides. One service.
#[derive(Debug, Clone)]
pub struct Watcher {
    /// The database.
    pub store: Store,
    /// What is watched.
    pub programs: Arc<Vec<Arc<Program>>>,
    /// What somebody wants to know.
    pub rules: Arc<Vec<Rule>>,
    /// How they want to be told.
    pub policy: Policy,
    /// Whether the watch was begun before anything was observed.
    pub has_begun: bool,
    /// What programs use, for rules about figures.
    pub board: Board,
    /// The newest verdicts.
    pub verdicts: Verdicts,
    /// Sends what was decided.
    pub outbox: Outbox,
    /// Rings when something was observed.
    pub bell: Arc<Notify>,
    /// Rings when a verdict changed.
    pub changed: Arc<Notify>,
    /// Makes events of verdicts that changed, if they go to NATS.
    pub teller: Option<Teller>,
    /// The clock.
    pub clock: SystemClock,
}

/// Since when each trouble holds, by rule and program.
type Since = BTreeMap<(String, String), Timestamp>;

impl Watcher {
    /// Judges until it is aborted.
    pub async fn run(self) -> Result<(), Failure> {
        let again = |err: Error| Failure::again(err, REMEDY);
        let now = self.clock.now();
        let mut alerts =
            self.store.book().alerts(&self.policy, now).await.map_err(|err| again(err.into()))?;
        let (mut last, mut since) = (now, Since::new());
        if !self.has_begun || self.verdicts.is_some() {
            // After a failure of its own it knows as little as after a start.
            self.begin().await.map_err(again)?;
        }
        loop {
            let began = self.clock.now();
            if last.since(began) > STEP || began.since(last) > GAP {
                self.begin().await.map_err(again)?;
            }
            last = began;
            self.judge().await.map_err(again)?;
            self.decide(&mut alerts, &mut since).await.map_err(again)?;
            self.clock.sleep(GATHER).await;
            tokio::select! {
                () = self.bell.notified() => {}
                () = self.clock.sleep(EVERY.saturating_sub(GATHER)) => {}
            }
        }
    }

    /// From now on what is not observed counts as silent after its time.
    async fn begin(&self) -> Result<(), Error> {
        for program in self.programs.iter() {
            program.saw(Seen::Watching).await?;
        }
        Ok(())
    }

    async fn judge(&self) -> Result<(), Error> {
        for program in self.programs.iter() {
            let known = program.look();
            let now = self.clock.now().max(known.at);
            let found = verdict(&known.state, &program.watching.expect, now);
            let was = self.verdicts.of(program.name());
            let is_new = was.as_ref().is_none_or(|was| differs(was, &found));
            if is_new {
                let reports = self.reports(program.name(), was.as_deref(), &found, now).await?;
                self.store.judged(program.name(), known.last, now, &found, reports).await?;
                tracing::info!(program = program.name(), "{}: {}", program.name(), found.says);
            }
            self.verdicts.set(program.name(), Arc::new(found));
            if is_new {
                self.changed.notify_one();
                self.teller.iter().for_each(Teller::ring);
            }
        }
        Ok(())
    }

    /// What is to be reported of a verdict: nothing after a start if it is as before that.
    async fn reports(
        &self,
        name: &str,
        was: Option<&Verdict>,
        found: &Verdict,
        now: Timestamp,
    ) -> Result<Vec<(&'static str, String)>, Error> {
        let Some(teller) = &self.teller else { return Ok(Vec::new()) };
        if was.is_none() {
            let before = self.store.verdicts(name, 1).await?;
            let before = before.first().and_then(|it| serde_json::from_str(&it.body).ok());
            if before.is_some_and(|before| !differs(&before, found)) {
                return Ok(Vec::new());
            }
        }
        Ok(vec![teller.report(name, found, now)])
    }

    async fn decide(&self, alerts: &mut Alerts, since: &mut Since) -> Result<(), Error> {
        let now = self.clock.now();
        let facts: Vec<Facts> =
            self.rules.iter().map(|rule| self.facts(rule, alerts, since, now)).collect();
        let decision = alerts.decide(&self.rules, &facts, &self.policy, now);
        if decision.is_empty() {
            return Ok(());
        }
        for notice in &decision.notices {
            tracing::info!(incident = notice.incident, rule = notice.rule, "{}", notice.title);
        }
        self.store.book().decided(decision.clone(), self.outbox.names()).await?;
        alerts.apply(&decision, &self.policy, now);
        if !decision.notices.is_empty() {
            self.outbox.poke();
        }
        Ok(())
    }

    /// What is so now for this rule.
    fn facts(&self, rule: &Rule, alerts: &Alerts, since: &mut Since, now: Timestamp) -> Facts {
        let mut facts = Facts { removed: self.removed(rule, alerts), ..Facts::default() };
        let is_about = |program: &&Arc<Program>| {
            rule.is_about(program.name(), &[]) && rules::is_about(rule, &program.watching.expect)
        };
        for program in self.programs.iter().filter(is_about) {
            let name = program.name().to_owned();
            let key = (rule.name.clone(), name.clone());
            let known = program.look();
            let found = match &rule.when {
                Condition::Trouble(troubles) => {
                    let Some(verdict) = self.verdicts.of(&name) else { continue };
                    trouble(&verdict, troubles)
                }
                Condition::Event { kind, level } => {
                    let recent =
                        super::events::lately(&known.state, (kind, *level), rule.clear, now);
                    Some(recent)
                }
                Condition::Figure { figure, above, below } => {
                    figure_beyond(&self.board, (&name, figure), (*above, *below), now)
                }
                // Of a fleet a sidecar knows nothing: refused where rules are read.
                Condition::Standing(_) | Condition::Share { .. } | Condition::Anomaly(_) => {
                    continue;
                }
            };
            match found {
                Some(Some(why)) => {
                    let since = *since.entry(key).or_insert(now);
                    let heard = Some(known.at).filter(|at| *at > Timestamp::default());
                    facts.holds.push(Fact { node: name, since, why, ip: String::new(), heard });
                }
                Some(None) => {
                    since.remove(&key);
                }
                None => {
                    facts.unknown.insert(name);
                }
            }
        }
        facts
    }

    /// The members of this rule's incidents that are watched no more.
    fn removed(&self, rule: &Rule, alerts: &Alerts) -> BTreeSet<String> {
        let members = alerts.open().filter(|incident| incident.rule == rule.name);
        let live = members.flat_map(|incident| incident.live().map(|(name, _)| name));
        let is_watched = |name: &&String| self.programs.iter().any(|it| it.name() == *name);
        live.filter(|name| !is_watched(name)).cloned().collect()
    }
}

/// Why one of these troubles holds; `Some(None)`: none does; `None`: nobody can say.
#[expect(clippy::option_option, reason = "unknown and no are different answers")]
fn trouble(verdict: &Verdict, troubles: &[Trouble]) -> Option<Option<String>> {
    let held = troubles.iter().find(|it| verdict.has(**it) == Some(true));
    if let Some(held) = held {
        let about = verdict.about(*held);
        let why = match about {
            Some(found) if !found.remedy.is_empty() => {
                format!("{}. {}", verdict.says, found.remedy)
            }
            _ => verdict.says.clone(),
        };
        return Some(Some(why));
    }
    troubles.iter().all(|it| verdict.has(*it) == Some(false)).then_some(None)
}

/// Why a figure of a program is above or below its limit; `Some(None)`: it is not; `None`: it is not known now.
#[expect(clippy::option_option, reason = "unknown and no are different answers")]
fn figure_beyond(
    board: &Board,
    (program, figure): (&str, &str),
    (above, below): (Option<f64>, Option<f64>),
    now: Timestamp,
) -> Option<Option<String>> {
    let used = board.of(program)?;
    // What was sampled some looks ago says nothing of now.
    let is_old = board.is_old(used.at, now);
    let value = used.figure(figure).ok().filter(|_| !is_old)?;
    let beyond = match (above, below) {
        (Some(limit), _) if value > limit => Some(("above", limit)),
        (_, Some(limit)) if value < limit => Some(("below", limit)),
        _ => None,
    };
    Some(beyond.map(|(word, limit)| format!("{figure} of {program} is {value:.1}, {word} {limit}")))
}

/// Whether an answer or a trouble is another one; the words change with the time.
fn differs(was: &Verdict, is: &Verdict) -> bool {
    let answers = |it: &Verdict| {
        [&it.alive, &it.training, &it.published, &it.earning, &it.swarm]
            .map(|found| (found.answer, found.cause.clone()))
    };
    was.troubles != is.troubles || answers(was) != answers(is)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sidecar::used::{By, MachineUsed, Used};
    use crate::usage::{Metric, Readings, Unknown};

    /// A board with a program that holds so many bytes, sampled at this second.
    fn board(bytes: Result<u64, Unknown>, second: u64) -> Board {
        let at = Timestamp::from_unix_ms(second * 1_000);
        let mut readings = Readings::unknown(Unknown::Off);
        readings[Metric::Memory] = bytes;
        let unknown = Unknown::Missed;
        let used = Used {
            at,
            cpu_percent: Err(unknown),
            readings,
            by: ["cpu", "memory", "disk"].map(|figure| (figure, By::Processes)),
            container: None,
            disk_free: Err(unknown),
            cards: Err(unknown),
        };
        let machine = MachineUsed {
            at,
            cpu_percent: Err(unknown),
            cores: Err(unknown),
            celsius: Err(unknown),
            memory: Err(unknown),
            load: Err(unknown),
            readings,
            cards: Err(unknown),
        };
        let board = Board::default();
        board.begins(Duration::from_secs(15));
        board.put([("one".to_owned(), Arc::new(used))].into(), machine, Duration::ZERO);
        board
    }

    #[test]
    fn a_figure_that_is_unknown_or_old_fires_nothing_and_ends_nothing() {
        let now = Timestamp::from_unix_ms(1_000_000);
        let beyond =
            |board: &Board, figure, limits| figure_beyond(board, ("one", figure), limits, now);
        let fresh = board(Ok(100 << 20), 980);
        let (above, below) = ((Some(90.0), None), (None, Some(90.0)));
        let why = beyond(&fresh, "memory_mib", above).unwrap().unwrap();
        assert_eq!(why, "memory_mib of one is 100.0, above 90");
        assert_eq!(beyond(&fresh, "memory_mib", below), Some(None));
        assert_eq!(beyond(&fresh, "memory_mib", (Some(100.0), Some(100.0))), Some(None));
        assert_eq!(beyond(&fresh, "cpu_percent", below), None, "not 0");
        assert_eq!(beyond(&board(Err(Unknown::Gone), 980), "memory_mib", below), None);
        assert_eq!(beyond(&board(Ok(100 << 20), 950), "memory_mib", above), None, "some looks ago");
        assert_eq!(beyond(&Board::default(), "memory_mib", above), None);
    }
}
