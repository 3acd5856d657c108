//! Jobs in the journal: admission, refusal, transitions and look-up.

use std::collections::BTreeMap;

use crate::sql::{Connection, OptionalExtension as _, SqliteError, params};

use super::events::{self, Happened};
use super::outbox::{self, Ready};
use super::story::Story;
use super::{Error, Journal, done, kept, millis};
use crate::clock::Timestamp;
use crate::ids::{Hash, JobId};
use crate::job::phase::{Event, Transition};
use crate::job::spec::Refused;
use crate::job::{Job, Status};

/// What the journal knows about a job id.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// The hash of the message, which tells apart two messages under one id.
    pub body_hash: Hash,
    /// The job, without command, entrypoint and environment if it is packed; `None` if its message was
    /// refused or only the id is remembered.
    pub job: Option<Job>,
    /// How to acknowledge its latest delivery, in the bus's own form.
    pub delivery: Option<String>,
    /// Whether the job still needs work.
    pub open: bool,
    /// Set if the message was refused and its sender had not proved that the id was theirs: the sequence
    /// number of the last status. The id's owner may still use it, and continues from that number.
    pub unproven_seq: Option<u64>,
}

/// A job's message and its events.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    /// The message as it was delivered.
    pub body: Vec<u8>,
    /// The events, oldest first.
    pub events: Vec<Happened>,
}

impl Journal {
    /// What is known about this id; `None` if it is not remembered.
    pub async fn lookup(&self, id: &JobId) -> Result<Option<Known>, Error> {
        let id = id.clone();
        let found = self.writer.call(false, move |db| Found::of(db, &id)).await?;
        // Decode here, not on the database thread.
        found.map(Found::read).transpose()
    }

    /// Records a new job: its first state, its message, and how to acknowledge it. Replaces a refusal that
    /// did not use the id up. Durable. Repeatable.
    pub async fn admit(
        &self,
        taken: &Transition,
        body: Vec<u8>,
        delivery: Option<String>,
    ) -> Result<(), Error> {
        let Transition { job, statuses, .. } = taken;
        let (id, hash, phase) = (job.id().clone(), job.spec_hash.to_string(), job.phase.name());
        let (state, since) = (serde_json::to_string(job)?, millis(job.since));
        let statuses = Ready::all(statuses)?;
        let work = move |db: &Connection| {
            done::make_way(db, &id, true)?;
            let sql = "INSERT INTO jobs (job_id, body_hash, body, delivery, phase, state, open, updated_ms, renewed_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1, ?7, ?7)
                 ON CONFLICT (job_id) DO UPDATE SET body_hash = ?2, body = ?3, delivery = ?4,
                 phase = ?5, state = ?6, open = 1, updated_ms = ?7, renewed_ms = ?7, revision = 0
                 WHERE phase = 'unproven'";
            let rows = db.prepare_cached(sql)?.execute(params![
                id.as_str(),
                hash,
                body,
                delivery,
                phase,
                state,
                since,
            ])?;
            if rows == 1 {
                return outbox::put(db, &statuses);
            }
            is_there_already(db, &id, 0, &state)
        };
        self.writer.change("admit", true, work).await
    }

    /// Records a refusal and its one status. `proven` says whether it uses the id up. Durable.
    pub async fn refuse(
        &self,
        refused: &Refused,
        status: Status,
        proven: bool,
    ) -> Result<(), Error> {
        let (id, hash) = (refused.id.clone(), refused.body_hash.to_string());
        let (at, status) = (millis(status.timestamp), Ready::of(&status)?);
        let phase = if proven { "rejected" } else { "unproven" };
        let work = move |db: &Connection| {
            done::make_way(db, &id, false)?;
            let sql = "INSERT INTO jobs (job_id, body_hash, phase, open, updated_ms)
                 VALUES (?, ?, ?, 0, ?)";
            db.prepare_cached(sql)?.execute(params![id.as_str(), hash, phase, at])?;
            done::leave(db, &id)?;
            outbox::put(db, &[status])
        };
        self.writer.change("refuse", true, work).await
    }

    /// Records that `event` led to `moved`; durable if the transition says so. The write is named after the
    /// phase. Repeatable, because a commit that reported an error may still have happened. If another
    /// transition was recorded first, nothing is written and the call fails with [`Error::Superseded`].
    pub async fn record(
        &self,
        event: &Event,
        moved: &Transition,
        at: Timestamp,
    ) -> Result<(), Error> {
        let Transition { job, statuses, durable, kept } = moved;
        let (id, phase, open) = (job.id().clone(), job.phase.name(), !job.phase.is_done());
        let (state, event) = (serde_json::to_string(job)?, events::Ready::of(event)?);
        let (statuses, at) = (Ready::all(statuses)?, millis(at));
        let kept = match kept {
            Some(kept) => Some((serde_json::to_string(kept)?, kept.clone())),
            None => None,
        };
        let revision = i64::try_from(job.revision).unwrap_or(i64::MAX);
        let work = move |db: &Connection| {
            let sql = "UPDATE jobs SET phase = ?1, state = ?2, open = ?3, updated_ms = ?4,
                 revision = ?6 WHERE job_id = ?5 AND revision = ?6 - 1";
            let named = params![phase, state, open, at, id.as_str(), revision];
            if db.prepare_cached(sql)?.execute(named)? != 1 {
                // If the answer to the first commit was lost, the ended job may be packed by now.
                let packed = !open && done::holds(db, &id)?;
                return if packed { Ok(()) } else { is_there_already(db, &id, revision, &state) };
            }
            event.append(db, id.as_str(), at)?;
            if !open {
                done::leave(db, &id)?;
            }
            if let Some((json, kept)) = &kept {
                kept::put(db, kept, json)?;
            }
            outbox::put(db, &statuses)
        };
        self.writer.change(phase, durable.is_some(), work).await
    }

    /// Records how the job's latest delivery is acknowledged.
    pub async fn redelivered(
        &self,
        id: &JobId,
        delivery: Option<String>,
        at: Timestamp,
    ) -> Result<(), Error> {
        let id = id.clone();
        let work = move |db: &Connection| {
            // A new delivery belongs to this node until its ack wait is over.
            let sql = "UPDATE jobs SET delivery = ?, renewed_ms = ? WHERE job_id = ?";
            db.execute(sql, params![delivery, millis(at), id.as_str()])?;
            Ok(())
        };
        self.writer.change("redelivered", false, work).await
    }

    /// Records when each of these pool jobs was last confirmed to belong to this node.
    pub async fn renewed(&self, jobs: BTreeMap<JobId, Timestamp>) -> Result<(), Error> {
        let work = move |db: &Connection| {
            let mut update =
                db.prepare_cached("UPDATE jobs SET renewed_ms = ? WHERE job_id = ?")?;
            for (id, at) in jobs {
                update.execute(params![millis(at), id.as_str()])?;
            }
            Ok(())
        };
        self.writer.call(false, work).await
    }

    /// When each open pool job was last confirmed to belong to this node. Jobs that wait to be delivered
    /// again are left out.
    pub async fn renewals(&self) -> Result<BTreeMap<JobId, Timestamp>, Error> {
        let work = |db: &Connection| {
            let sql = "SELECT job_id, renewed_ms FROM jobs
                 WHERE open = 1 AND renewed_ms IS NOT NULL AND phase <> 'waiting'";
            let mut query = db.prepare(sql)?;
            let rows =
                query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
            let parse = |row: Result<(String, i64), SqliteError>| {
                let (id, at_ms) = row?;
                let id = id.parse().map_err(|err| Error::Failed(Box::new(err)))?;
                Ok((id, Timestamp::from_unix_ms(u64::try_from(at_ms).unwrap_or(0))))
            };
            rows.map(parse).collect()
        };
        self.writer.call(false, work).await
    }

    /// The job's message and its first events, oldest first, at most `limit`. Only for a job that is not
    /// packed: a packed one has no message.
    pub async fn history(&self, id: &JobId, limit: u32) -> Result<History, Error> {
        let id = id.clone();
        let work = move |db: &Connection| {
            let sql = "SELECT body FROM jobs WHERE job_id = ?";
            let body = db.query_row(sql, [id.as_str()], |row| row.get::<_, Option<Vec<u8>>>(0));
            let columns = events::COLUMNS;
            let sql = format!("SELECT {columns} FROM events WHERE job_id = ? ORDER BY id LIMIT ?");
            let mut query = db.prepare(&sql)?;
            let mut rows = query.query(params![id.as_str(), limit])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(events::happened(row)?);
            }
            Ok(History { body: body?.unwrap_or_default(), events: found })
        };
        self.writer.call(false, work).await
    }

    /// Every open job, oldest first.
    pub async fn open_jobs(&self) -> Result<Vec<Job>, Error> {
        let work = |db: &Connection| {
            let sql = "SELECT state FROM jobs WHERE open = 1 AND state IS NOT NULL ORDER BY rowid";
            let mut query = db.prepare(sql)?;
            let states = query.query_map([], |row| row.get::<_, String>(0))?;
            states.map(|state| Ok(serde_json::from_str(&state?)?)).collect()
        };
        self.writer.call(false, work).await
    }

    /// Every open job that does not wait to be delivered again, with its number of transitions.
    pub async fn in_hand(&self) -> Result<Vec<(JobId, u64)>, Error> {
        let work = |db: &Connection| {
            let sql = "SELECT job_id, revision FROM jobs WHERE open = 1 AND phase <> 'waiting'";
            let mut query = db.prepare_cached(sql)?;
            let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
            let parse = |row: Result<(String, i64), SqliteError>| {
                let (id, revision) = row?;
                let id = id.parse().map_err(|err| Error::Failed(Box::new(err)))?;
                Ok((id, u64::try_from(revision).unwrap_or(0)))
            };
            rows.map(parse).collect()
        };
        self.writer.call(false, work).await
    }
}

/// An id's row as stored.
enum Found {
    /// A row in `jobs`: open, or not packed yet.
    Job {
        hash: String,
        phase: String,
        state: Option<String>,
        delivery: Option<String>,
        open: bool,
        seq: u64,
    },
    /// A row in `done`: packed.
    Done { hash: [u8; 32], phase: String, seq: u64, story: Option<Vec<u8>> },
}

impl Found {
    fn of(db: &Connection, id: &JobId) -> Result<Option<Self>, Error> {
        let unsigned = |seq: Option<i64>| seq.and_then(|seq| u64::try_from(seq).ok()).unwrap_or(0);
        let sql = "SELECT body_hash, phase, state, delivery, open,
             (SELECT max(seq) FROM outbox WHERE outbox.job_id = jobs.job_id) FROM jobs
             WHERE job_id = ?";
        let in_hand = db.prepare_cached(sql)?.query_row([id.as_str()], |row| {
            Ok(Self::Job {
                hash: row.get(0)?,
                phase: row.get(1)?,
                state: row.get(2)?,
                delivery: row.get(3)?,
                open: row.get(4)?,
                seq: unsigned(row.get(5)?),
            })
        });
        if let Some(found) = in_hand.optional()? {
            return Ok(Some(found));
        }
        let sql = "SELECT body_hash, phase, seq, story FROM done WHERE job_id = ?";
        let done = db.prepare_cached(sql)?.query_row([id.as_str()], |row| {
            Ok(Self::Done {
                hash: row.get(0)?,
                phase: row.get(1)?,
                seq: unsigned(row.get(2)?),
                story: row.get(3)?,
            })
        });
        Ok(done.optional()?)
    }

    fn read(self) -> Result<Known, Error> {
        Ok(match self {
            Self::Job { hash, phase, state, delivery, open, seq } => Known {
                body_hash: hash.parse().map_err(|err| Error::Failed(Box::new(err)))?,
                job: state.map(|state| serde_json::from_str(&state)).transpose()?,
                delivery,
                open,
                unproven_seq: (phase == done::UNPROVEN).then_some(seq),
            },
            Self::Done { hash, phase, seq, story } => Known {
                body_hash: Hash(hash),
                job: story.map(|story| Story::unpack(&story)).transpose()?.and_then(|it| it.job),
                delivery: None,
                open: false,
                unproven_seq: (phase == done::UNPROVEN).then_some(seq),
            },
        })
    }
}

/// Succeeds if the journal already has exactly this state, so that repeating a write is no error.
fn is_there_already(db: &Connection, id: &JobId, revision: i64, state: &str) -> Result<(), Error> {
    let sql = "SELECT count(*) FROM jobs WHERE job_id = ? AND revision = ? AND state = ?";
    let named = params![id.as_str(), revision, state];
    match db.query_row(sql, named, |row| row.get::<_, i64>(0))? {
        0 => Err(Error::Superseded { job: id.clone() }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Address;
    use crate::job::phase::{Asked, Fault, Retry, Rules};
    use crate::job::spec::parse;
    use crate::job::{Job, Reason};

    const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

    fn taken(id: &str) -> Transition {
        let body = format!(r#"{{"job_id": "{id}", "image": "x"}}"#);
        let parsed = parse(body.as_bytes()).unwrap();
        let (spec, spec_hash) = (parsed.spec, parsed.spec_hash);
        let asked = Asked { spec, spec_hash, target: "pool.x".to_owned() };
        Job::accept(asked, Address::new([1; 20]), 0, NOW)
    }

    fn failed(job: &Job, error: &str) -> (Event, Transition) {
        let fault = Fault::new(Reason::ImageInvalid, error);
        let event = Event::Failed { fault, retry: Retry::Never };
        let hour = std::time::Duration::from_hours(1);
        let rules = Rules {
            timeout_max: hour,
            fetch_give_up: hour,
            upload_give_up: hour,
            result_keep: hour,
        };
        let moved = job.apply(event.clone(), NOW, &rules).unwrap();
        (event, moved)
    }

    #[tokio::test]
    async fn a_decision_that_is_written_twice_counts_once_and_no_other_takes_its_place() {
        let journal = Journal::in_memory().unwrap();
        let first = taken("job");
        for _ in 0..2 {
            journal.admit(&first, Vec::new(), None).await.unwrap();
        }
        let (event, moved) = failed(&first.job, "one way");
        for _ in 0..2 {
            journal.record(&event, &moved, NOW).await.unwrap();
        }
        let said = journal.unsent(10).await.unwrap();
        let numbers: Vec<u64> = said.iter().map(|status| status.seq).collect();
        assert_eq!(numbers, [1, 2], "each status once: a pool's job is not ended yet");
        assert_eq!(journal.history(first.job.id(), 10).await.unwrap().events.len(), 1);

        // Another transition from the previous state, and another admission of the same id.
        let (event, other) = failed(&first.job, "another way");
        let refused = journal.record(&event, &other, NOW).await;
        assert!(matches!(refused, Err(Error::Superseded { .. })), "{refused:?}");
        let known = journal.lookup(first.job.id()).await.unwrap().unwrap();
        assert_eq!(known.job.as_ref(), Some(&moved.job));
        let refused = journal.admit(&first, Vec::new(), None).await;
        assert!(matches!(refused, Err(Error::Superseded { .. })), "{refused:?}");
        let event = Event::Concluded;
        let hour = std::time::Duration::from_hours(1);
        let rules = Rules {
            timeout_max: hour,
            fetch_give_up: hour,
            upload_give_up: hour,
            result_keep: hour,
        };
        let ended = moved.job.apply(event.clone(), NOW, &rules).unwrap();
        journal.record(&event, &ended, NOW).await.unwrap();
        assert_eq!(journal.in_hand().await.unwrap(), [(first.job.id().clone(), 2)]);
    }
}
