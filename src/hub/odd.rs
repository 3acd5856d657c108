//! Looks for what is odd about jobs: those whose memory grows all the time, and those that run for much longer than
//! others of their kind did.
//!
//! Must hold: of what is not known nothing is odd: a job that tells no figures, or one that the hub has not sent and whose
//! kind it can't know.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::figures::Figures;
use super::store::Error;
use super::store::view::Eyes;
use crate::clock::{Clock, Timestamp};
use crate::fleet::anomaly::Anomaly;
use crate::fleet::words;
use crate::ids::Address;
use crate::report::one_line;
use crate::usage::anomaly::{memory_slope, slower_than_like};

/// How often it looks.
pub const EVERY: Duration = Duration::from_secs(30);

/// How much of a job's name is told.
const NAME_CHARS_MAX: usize = 64;

const MIB: u64 = 1024 * 1024;

/// What is odd, by what it is and on which node, in words.
pub type Found = BTreeMap<(Anomaly, Address), String>;

/// What was found odd at the last look. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Odd(Arc<Mutex<Found>>);

impl Odd {
    /// What was found at the last look.
    pub fn found(&self) -> Found {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at all jobs now.
    pub async fn look(&self, figures: &Figures, eyes: &Eyes, now: Timestamp) -> Result<(), Error> {
        let mut found = growing(figures, now);
        found.extend(slow(eyes, now).await?);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(())
    }

    /// Looks each [`EVERY`].
    pub async fn run(
        &self,
        figures: &Figures,
        eyes: &Eyes,
        clock: &impl Clock,
    ) -> Result<(), Error> {
        loop {
            self.look(figures, eyes, clock.now()).await?;
            clock.sleep(EVERY).await;
        }
    }
}

/// Jobs whose memory grows.
fn growing(figures: &Figures, now: Timestamp) -> Found {
    let mut found = Found::new();
    for samples in figures.lately(now) {
        let Ok(node) = samples.node.parse::<Address>() else { continue };
        let Some(slope) = memory_slope(&samples.memory) else { continue };
        let why = format!(
            "the memory of job {} grew by {} MiB in {}, {} MiB an hour",
            one_line(&samples.job, NAME_CHARS_MAX),
            slope.grew_bytes / MIB,
            words::age(slope.over),
            slope.an_hour_bytes / MIB,
        );
        found.insert((Anomaly::MemorySlope, node), why);
    }
    found
}

/// Jobs that run for longer than those of the same name and image did.
async fn slow(eyes: &Eyes, now: Timestamp) -> Result<Found, Error> {
    let mut ran: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    let mut running = Vec::new();
    for sent in eyes.sent().await? {
        let Some(kind) = kind(&sent.asked) else { continue };
        let Some(began) = sent.began else { continue };
        let began = Timestamp::from_unix_ms(began);
        match sent.ended {
            Some(ended) => {
                let took = Timestamp::from_unix_ms(ended).since(began);
                ran.entry(kind).or_default().push(took);
            }
            None if !sent.is_over => running.push((kind, sent.id, sent.node, now.since(began))),
            None => {}
        }
    }
    let mut found = Found::new();
    for (kind, job, node, took) in running {
        let Some(usual) = ran.get(&kind).and_then(|ran| slower_than_like(took, ran)) else {
            continue;
        };
        let Ok(node) = node.parse::<Address>() else { continue };
        let why = format!(
            "job {} has run for {}, where others of its kind took {}",
            one_line(&job, NAME_CHARS_MAX),
            words::age(took),
            words::age(usual),
        );
        found.insert((Anomaly::SlowerThanLike, node), why);
    }
    Ok(found)
}

/// What jobs are alike by: their name, image and command.
fn kind(asked: &Value) -> Option<String> {
    let (name, image) = (asked.get("name")?.as_str()?, asked.get("image_name")?.as_str()?);
    Some(format!("{name}\n{image}\n{}", asked.get("command").unwrap_or(&Value::Null)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hub::store::Store;
    use crate::sql::Connection;
    use crate::usage::heard::{Heard, Kind};

    const NODE: &str = "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed";

    #[tokio::test]
    async fn a_job_that_leaks_is_told_with_its_name_and_how_fast() {
        let (figures, odd) = (Figures::default(), Odd::default());
        let eyes = Eyes::of(Store::in_memory().unwrap());
        let told = |number: u64| Heard {
            kind: Kind::Job,
            node: NODE.to_owned(),
            job: Some("leaky".to_owned()),
            at: Timestamp::from_unix_ms(number * 30_000),
            body: json!({"metrics": {"memory_bytes": (500 + 4 * number) * MIB}}),
        };
        figures.note(&(0..100).map(told).collect::<Vec<_>>());
        odd.look(&figures, &eyes, Timestamp::from_unix_ms(3_000_000)).await.unwrap();
        let found = odd.found();
        let why = &found[&(Anomaly::MemorySlope, NODE.parse().unwrap())];
        assert!(why.contains("job leaky") && why.contains("480 MiB an hour"), "{why}");
        odd.look(&figures, &eyes, Timestamp::from_unix_ms(30_000_000)).await.unwrap();
        assert!(odd.found().is_empty(), "it is over, or nobody knows of it");
    }

    #[tokio::test]
    async fn a_job_is_compared_with_those_of_its_name_image_and_command_alone() {
        let store = Store::in_memory().unwrap();
        let eyes = Eyes::of(store.clone());
        let now = Timestamp::from_unix_ms(100_000_000);
        let asked = |command: &str| json!({"name": "n", "image_name": "i", "command": [command]});
        for number in 0..7 {
            let command = if number == 6 { "other" } else { "same" };
            store.keep_task(format!("j{number}"), asked(command), now).await.unwrap();
        }
        let fill = |db: &Connection| -> Result<(), Error> {
            for number in 0..7_i64 {
                let over = number < 5;
                let status = |stage: &str, at: u64| {
                    let at = Timestamp::from_unix_ms(at);
                    json!({"status": {"stage": stage, "timestamp": at}})
                };
                let mut statuses = vec![status("running", 90_000_000)];
                if over {
                    statuses.push(status("completed", 90_600_000));
                }
                let sql = "INSERT INTO jobs VALUES (?1, ?2, 1, 2, 'x', ?3, ?4)";
                let row = crate::sql::params![
                    NODE,
                    format!("j{number}"),
                    over,
                    Value::from(statuses).to_string()
                ];
                db.execute(sql, row)?;
            }
            Ok(())
        };
        store.writer.call(true, fill).await.unwrap();
        let odd = Odd::default();
        odd.look(&Figures::default(), &eyes, now).await.unwrap();
        let found = odd.found();
        assert_eq!(found.len(), 1, "{found:?}");
        let why = &found[&(Anomaly::SlowerThanLike, NODE.parse().unwrap())];
        assert!(why.contains("job j5 has run for"), "{why}");
        odd.look(&Figures::default(), &eyes, Timestamp::from_unix_ms(90_700_000)).await.unwrap();
        assert!(odd.found().is_empty(), "not much longer yet");
    }
}
