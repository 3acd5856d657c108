//! Recordings: what was observed of a program, and what followed from it, as a folder of text. The support bundle, and
//! the input of a replay.
//!
//! Must hold: a recording holds only what was scrubbed; a replay of it gives the same verdicts, byte for byte.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::report::BoxError;
use crate::sql::{Connection, OpenFlags, OptionalExtension as _};
use crate::watch::expect::Expect;
use crate::watch::observation::Observation;
use crate::watch::state::Watched;
use crate::watch::verdict::{Verdict, verdict};

/// The file of observations: a JSON object a line.
pub const OBSERVATIONS: &str = "observations.jsonl";

/// The file of verdicts: a JSON object a line.
pub const VERDICTS: &str = "verdicts.jsonl";

/// The file that says what was expected.
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

/// Writes a recording of a program out of a sidecar's database, which may be in use, into a new folder. Returns how many
/// observations it has.
pub fn record(db: &Path, program: &str, expect: &Expect, to: &Path) -> Result<usize, BoxError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(db, flags)?;
    std::fs::create_dir(to).map_err(|err| format!("{} can't be made: {err}", to.display()))?;
    let file = |name: &str| std::fs::File::create_new(to.join(name)).map(std::io::BufWriter::new);
    serde_json::to_writer_pretty(file(EXPECTED)?, expect)?;
    // One view of all of it, while the sidecar writes on.
    db.execute_batch("BEGIN")?;
    let base = "SELECT base FROM programs WHERE name = ?1";
    let base: Option<String> = db.query_row(base, [program], |row| row.get(0)).optional()?;
    let base = base.ok_or_else(|| format!("no program {program:?} is watched there"))?;
    file(BASE)?.write_all(base.as_bytes())?;
    let count = write_observations(&db, program, &mut file(OBSERVATIONS)?)?;
    write_verdicts(&db, program, &mut file(VERDICTS)?)?;
    if count == 0 {
        return Err(format!("nothing was observed of {program:?}").into());
    }
    Ok(count)
}

fn write_verdicts(db: &Connection, program: &str, to: &mut impl Write) -> Result<(), BoxError> {
    let select = "SELECT after, at_ms, body FROM verdicts WHERE name = ?1 AND after >= (SELECT
                  COALESCE(MIN(id), 1) - 1 FROM observations WHERE name = ?1) ORDER BY id";
    let mut select = db.prepare(select)?;
    let mut rows = select.query([program])?;
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
    to: &mut impl Write,
) -> Result<usize, BoxError> {
    let select = "SELECT id, body FROM observations WHERE name = ?1 ORDER BY id";
    let mut select = db.prepare(select)?;
    let mut rows = select.query([program])?;
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
    let expect: Expect = serde_json::from_str(&expect)?;
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
