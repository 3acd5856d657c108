//! The health of the node's GPUs, so that a restart forgets no sick card.
//!
//! Invariant: a card has one row, its latest state.

use std::collections::BTreeMap;

use crate::sql::{Connection, SqliteError, params};

use super::{Error, Journal, millis};
use crate::clock::Timestamp;
use crate::node::GpuUuid;
use crate::node::health::{Change, Record, State};

/// A card's record, and when it came into its state.
pub type Dated = (Record, Timestamp);

/// The most cards that are read: more than any host has.
const CARDS_MAX: u32 = 1024;

/// The record of each card that ever was anything but healthy.
pub(super) fn all(db: &Connection) -> Result<BTreeMap<GpuUuid, Dated>, Error> {
    let sql = "SELECT uuid, state, why, quarantines, since_ms FROM gpu_health
         ORDER BY since_ms DESC LIMIT ?";
    let mut query = db.prepare_cached(sql)?;
    let rows = query.query_map([CARDS_MAX], |row| {
        let (uuid, state): (String, String) = (row.get(0)?, row.get(1)?);
        let (why, quarantines, since): (String, u32, i64) = (row.get(2)?, row.get(3)?, row.get(4)?);
        let since = Timestamp::from_unix_ms(u64::try_from(since).unwrap_or(0));
        Ok((uuid, state, why, quarantines, since))
    })?;
    let mut found = BTreeMap::new();
    for row in rows.collect::<Result<Vec<_>, SqliteError>>()? {
        let (uuid, state, why, quarantines, since) = row;
        // Only this program writes here; a row that does not parse is a card that nobody knows.
        let (Some(uuid), Some(state)) = (GpuUuid::new(&uuid), State::named(&state)) else {
            continue;
        };
        found.insert(uuid, (Record { state, why, quarantines }, since));
    }
    Ok(found)
}

impl Journal {
    /// The record of each card that ever was anything but healthy.
    pub async fn gpu_health(&self) -> Result<BTreeMap<GpuUuid, Record>, Error> {
        let found = self.writer.call(false, all).await?;
        Ok(found.into_iter().map(|(uuid, (record, _))| (uuid, record)).collect())
    }

    /// Records that a card came into another state. Durable. Repeatable.
    pub async fn gpu_changed(&self, change: &Change, at: Timestamp) -> Result<(), Error> {
        let change = change.clone();
        let work = move |db: &Connection| {
            let sql = "INSERT OR REPLACE INTO gpu_health (uuid, state, why, quarantines, since_ms)
                 VALUES (?, ?, ?, ?, ?)";
            let Record { state, why, quarantines } = &change.now;
            let (uuid, state) = (change.card.as_str(), state.name());
            db.prepare_cached(sql)?.execute(params![uuid, state, why, quarantines, millis(at)])?;
            Ok(())
        };
        self.writer.change("gpu_changed", true, work).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Reader;

    #[tokio::test]
    async fn a_card_has_its_latest_state_here_and_for_other_processes() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let card = GpuUuid::new("GPU-a").unwrap();
        for (state, at) in [(State::Quarantined, 1000), (State::Retired, 2000)] {
            let now = Record { state, why: "Xid 79".to_owned(), quarantines: 5 };
            let change = Change { card: card.clone(), from: State::Healthy, now };
            journal.gpu_changed(&change, Timestamp::from_unix_ms(at)).await.unwrap();
        }
        let expected = Record { state: State::Retired, why: "Xid 79".to_owned(), quarantines: 5 };
        assert_eq!(journal.gpu_health().await.unwrap()[&card], expected);
        let seen = Reader::open(dir.path()).unwrap().gpu_health().unwrap();
        assert_eq!(seen[&card], (expected, Timestamp::from_unix_ms(2000)));
    }
}
