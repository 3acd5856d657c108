//! What the hub's metrics count.

use super::{Error, Store};
use crate::sql::Connection;

impl Store {
    /// How many notices wait to be sent, by channel.
    pub async fn notices_waiting(&self) -> Result<Vec<(String, u32)>, Error> {
        let sql = "SELECT channel, count(*) FROM notices WHERE state IN ('queued', 'sending') \
                   GROUP BY channel ORDER BY channel";
        let work = move |db: &Connection| {
            let mut rows = db.prepare_cached(sql)?;
            let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        };
        self.writer.call(false, work).await
    }

    /// Whether the database answers, and takes what is written.
    pub async fn answers(&self) -> Result<(), Error> {
        let put = "INSERT INTO cursors (name, value) VALUES ('answers', 0)
                   ON CONFLICT (name) DO UPDATE SET value = (value + 1) % 1000";
        self.writer.call(false, move |db| Ok(db.execute(put, []).map(drop)?)).await
    }

    /// A number that changes when another process changed the file.
    pub async fn outside_version(&self) -> Result<i64, Error> {
        let read = |db: &Connection| Ok(db.query_row("PRAGMA data_version", [], |row| row.get(0))?);
        self.writer.call(false, read).await
    }
}
