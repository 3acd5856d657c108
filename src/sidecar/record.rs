//! Recordings: what was observed of a program, and what followed from it, as a folder of text. The support bundle, and
//! the input of a replay.
//!
//! Must hold: a recording holds only what was scrubbed; a replay of it gives the same verdicts, byte for byte.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::store::Expected;
use crate::clock::Timestamp;
use crate::report::BoxError;
use crate::sql::{Connection, OpenFlags, OptionalExtension as _, Row, params};
use crate::watch::observation::Observation;
use crate::watch::state::Watched;
use crate::watch::verdict::{Verdict, verdict};

/// The file of observations: a JSON object a line.
pub const OBSERVATIONS: &str = "observations.jsonl";

/// The file of verdicts: a JSON object a line.
pub const VERDICTS: &str = "verdicts.jsonl";

/// The file that says what was expected, and by which version it was judged.
pub const EXPECTED: &str = "expected.json";

/// The file of what was known before the first observation.
pub const BASE: &str = "base.json";

/// The longest line of a recording, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;

/// An observation in a recording.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Recorded {
    /// Its number.
    pub id: i64,
    /// What was observed.
    #[serde(flatten)]
    pub observation: Observation,
}

/// A verdict in a recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The number of the last observation that it rests on.
    pub after: i64,
    /// When it was given.
    pub at: Timestamp,
    /// What it says.
    pub verdict: Verdict,
}

/// What of a program is recorded besides observations and verdicts.
struct Basis {
    /// What was known before the first observation, as JSON.
    base: String,
    /// What is expected of it.
    expected: Expected,
    /// The first observation that verdicts by this expectation can rest on.
    since: i64,
}

/// Writes a recording of a program out of a sidecar's database, which may be in use, into a new folder. Returns how many
/// observations it has. It has the verdicts by what is expected of the program now, and none by what was before. A try
/// that fails leaves no folder.
pub fn record(db: &Path, program: &str, to: &Path) -> Result<usize, BoxError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(db, flags)?;
    // One view of all of it, while the sidecar writes on.
    db.execute_batch("BEGIN")?;
    let basis = basis(&db, program)?;
    std::fs::create_dir(to).map_err(|err| format!("{} can't be made: {err}", to.display()))?;
    let written = write(&db, program, &basis, to);
    if written.is_err() {
        std::fs::remove_dir_all(to).ok();
    }
    written
}

fn basis(db: &Connection, program: &str) -> Result<Basis, BoxError> {
    let select = "SELECT programs.base, expects.body, expects.since_observation
                  FROM programs JOIN expects ON expects.name = programs.name
                  WHERE programs.name = ?1 AND EXISTS
                  (SELECT 1 FROM observations WHERE observations.name = programs.name)";
    let row = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?));
    let found = db.query_row(select, [program], row).optional()?;
    let (base, expected, since) =
        found.ok_or_else(|| format!("nothing was observed of a program {program:?}"))?;
    Ok(Basis { base, expected: serde_json::from_str(&expected)?, since })
}

fn write(db: &Connection, program: &str, basis: &Basis, to: &Path) -> Result<usize, BoxError> {
    let file = |name: &str| std::fs::File::create_new(to.join(name)).map(std::io::BufWriter::new);
    let mut expected = file(EXPECTED)?;
    serde_json::to_writer_pretty(&mut expected, &basis.expected)?;
    expected.flush()?;
    let mut base = file(BASE)?;
    base.write_all(basis.base.as_bytes())?;
    base.flush()?;
    write_verdicts(db, program, basis.since, &mut file(VERDICTS)?)?;
    write_observations(db, program, basis.since, &mut file(OBSERVATIONS)?)
}

fn write_verdicts(
    db: &Connection,
    program: &str,
    since: i64,
    to: &mut impl Write,
) -> Result<(), BoxError> {
    let select = "SELECT after, at_ms, body FROM verdicts WHERE name = ?1 AND after >= ?2
                  AND after >= (SELECT COALESCE(MIN(id), 1) - 1 FROM observations WHERE name = ?1)
                  ORDER BY id";
    let mut select = db.prepare(select)?;
    let mut rows = select.query(params![program, since])?;
    while let Some(row) = rows.next()? {
        let body: String = row.get(2)?;
        let ms = u64::try_from(row.get::<_, i64>(1)?).unwrap_or_default();
        let judged = Judged {
            after: row.get(0)?,
            at: Timestamp::from_unix_ms(ms),
            verdict: serde_json::from_str(&body)?,
        };
        serde_json::to_writer(&mut *to, &judged)?;
        to.write_all(b"\n")?;
    }
    Ok(to.flush()?)
}

fn write_observations(
    db: &Connection,
    program: &str,
    since: i64,
    to: &mut impl Write,
) -> Result<usize, BoxError> {
    let select = "SELECT id, body FROM observations WHERE name = ?1 AND id >= ?2 ORDER BY id";
    let mut select = db.prepare(select)?;
    let mut rows = select.query(params![program, since])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let body: String = row.get(1)?;
        let recorded = Recorded { id: row.get(0)?, observation: serde_json::from_str(&body)? };
        serde_json::to_writer(&mut *to, &recorded)?;
        to.write_all(b"\n")?;
        count += 1;
    }
    to.flush()?;
    Ok(count)
}

/// Replays a recording: gives each of its verdicts anew, in the recording's form, and says how many differ.
pub fn replay(
    from: &Path,
    mut out: impl FnMut(&str) -> Result<(), BoxError>,
) -> Result<usize, BoxError> {
    let expect = std::fs::read_to_string(from.join(EXPECTED))
        .map_err(|err| format!("{} can't be read: {err}", from.join(EXPECTED).display()))?;
    let Expected { expect, .. } = serde_json::from_str(&expect)?;
    let base = std::fs::read_to_string(from.join(BASE))
        .map_err(|err| format!("{} can't be read: {err}", from.join(BASE).display()))?;
    let mut state: Watched = serde_json::from_str(&base)?;
    let mut observations = lines::<Recorded>(&from.join(OBSERVATIONS))?.peekable();
    let mut differ = 0;
    for judged in lines::<Judged>(&from.join(VERDICTS))? {
        let judged = judged?;
        while let Some(next) = observations.peek() {
            if next.as_ref().is_ok_and(|it| it.id > judged.after) {
                break;
            }
            if let Some(recorded) = observations.next() {
                state.apply(&recorded?.observation);
            }
        }
        let Judged { after, at, .. } = judged;
        let again = Judged { after, at, verdict: verdict(&state, &expect, at) };
        differ += usize::from(again != judged);
        out(&serde_json::to_string(&again)?)?;
    }
    Ok(differ)
}

/// The objects of a file, one a line, each bounded.
fn lines<T: serde::de::DeserializeOwned>(
    path: &Path,
) -> Result<impl Iterator<Item = Result<T, BoxError>> + use<T>, BoxError> {
    let shown = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|err| format!("{shown} can't be read: {err}"))?;
    let mut reader = BufReader::new(file);
    let mut number = 0;
    Ok(std::iter::from_fn(move || {
        number += 1;
        let mut line = Vec::new();
        let mut part = std::io::Read::take(&mut reader, LINE_BYTES_MAX as u64);
        match part.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(
                serde_json::from_slice(&line)
                    .map_err(|err| BoxError::from(format!("{shown}, line {number}: {err}"))),
            ),
            Err(err) => Some(Err(format!("{shown} can't be read: {err}").into())),
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::sidecar::store::{Batch, Store};
    use crate::watch::expect::Expect;
    use crate::watch::observation::Seen;

    fn expect(grace_s: u64) -> Expect {
        Expect {
            logs: Vec::new(),
            has_process: true,
            ports: Vec::new(),
            says_work: false,
            idle: None,
            grace: Duration::from_secs(grace_s),
            published_for: None,
            earning: None,
            causes: BTreeMap::new(),
        }
    }

    /// As a start of the sidecar with this expectation, which then sees and judges once.
    async fn start(store: &Store, expect: &Expect, at: u64) {
        store.expects("one", &Expected::now(expect)).await.unwrap();
        let mut state = store.known("one").await.unwrap().state;
        let at = Timestamp::from_unix_ms(at);
        let is_running = expect.grace > Duration::from_secs(1);
        let seen = Seen::Process { is_running, started: None, why: "it was looked at".to_owned() };
        let observation = Observation { at, seen };
        state.apply(&observation);
        let batch = Batch { observations: vec![observation], ..Batch::default() };
        let last = store.take("one", batch, &state).await.unwrap();
        store.judged("one", last, at, &verdict(&state, expect, at), vec![]).await.unwrap();
    }

    fn replayed(folder: &Path) -> (usize, usize) {
        let mut lines = 0;
        let differ = replay(folder, |_| {
            lines += 1;
            Ok(())
        });
        (differ.unwrap(), lines)
    }

    #[tokio::test]
    async fn a_recording_is_judged_by_what_was_expected_then_and_not_by_what_is_configured_now() {
        let folder = tempfile::tempdir().unwrap();
        let (db, to) = (folder.path().join("sidecar.db"), folder.path().join("bundle"));
        let store = Store::open(&db).unwrap();
        start(&store, &expect(1), 1_000).await;
        start(&store, &expect(1), 2_000).await;
        record(&db, "one", &to).unwrap();
        assert_eq!(replayed(&to), (0, 2), "a start with the same expectation goes on");
        start(&store, &expect(60), 3_000).await;
        let to = folder.path().join("later");
        assert_eq!(record(&db, "one", &to).unwrap(), 1, "of before, only the sum");
        assert_eq!(replayed(&to), (0, 1), "verdicts by the expectation of before are left out");
        let text = std::fs::read_to_string(to.join(EXPECTED)).unwrap();
        let expected: Expected = serde_json::from_str(&text).unwrap();
        assert_eq!(expected, Expected::now(&expect(60)));
    }

    #[tokio::test]
    async fn a_try_that_fails_leaves_nothing_and_takes_nothing_away() {
        let folder = tempfile::tempdir().unwrap();
        let (db, to) = (folder.path().join("sidecar.db"), folder.path().join("bundle"));
        let store = Store::open(&db).unwrap();
        assert!(record(&db, "one", &to).is_err() && !to.exists(), "no such program");
        store.expects("one", &Expected::now(&expect(1))).await.unwrap();
        store.take("one", Batch::default(), &Watched::default()).await.unwrap();
        assert!(record(&db, "one", &to).is_err() && !to.exists(), "nothing was observed");
        start(&store, &expect(1), 1_000).await;
        let raw = Connection::open(&db).unwrap();
        raw.execute_batch("UPDATE verdicts SET body = 'rubbish'").unwrap();
        assert!(record(&db, "one", &to).is_err() && !to.exists(), "a verdict can't be read");
        std::fs::create_dir(&to).unwrap();
        std::fs::write(to.join("mine"), "mine").unwrap();
        assert!(record(&db, "one", &to).is_err() && to.join("mine").exists());
    }
}
