//! Readings in columns: one per metric, each value as its change from the one before.
//!
//! Pure. Invariant: what [`write`] makes, [`read`] turns into the same readings, whatever their values and reasons.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::usage::sample::{Reading, Unknown};

/// The readings of several metrics by their names.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Columns {
    /// The first known value, then each known value's change from the known one before it (in 64 bits, as a signed
    /// number); `null` where none is known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    values: BTreeMap<String, Vec<Option<i64>>>,
    /// Metrics of which nothing is known, all for one reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    unknown: BTreeMap<String, Unknown>,
    /// The reasons of the `null`s of a column in their order: how many have the same one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    unknown_at: BTreeMap<String, Vec<(u32, Unknown)>>,
}

impl Columns {
    /// Adds the column of a metric. Nothing is written for a column without readings.
    pub(super) fn write(&mut self, name: &str, column: &[Reading]) {
        let Some(first) = column.first() else { return };
        if let (Err(why), true) = (first, column.iter().all(|reading| reading == first)) {
            self.unknown.insert(name.to_owned(), *why);
            return;
        }
        let mut reasons: Vec<(u32, Unknown)> = Vec::new();
        for why in column.iter().filter_map(|reading| reading.err()) {
            match reasons.last_mut() {
                Some((count, same)) if *same == why => *count += 1,
                _ => reasons.push((1, why)),
            }
        }
        if !reasons.is_empty() {
            self.unknown_at.insert(name.to_owned(), reasons);
        }
        self.values.insert(name.to_owned(), changes(column));
    }

    /// Takes the column of a metric with this many readings. The error is a clause about the column.
    pub(super) fn read(&mut self, name: &str, count: usize) -> Result<Vec<Reading>, String> {
        if let Some(why) = self.unknown.remove(name) {
            return Ok(vec![Err(why); count]);
        }
        let changes = self.values.remove(name).unwrap_or_default();
        if changes.len() != count {
            return Err(format!("`{name}` has {} values for {count} samples", changes.len()));
        }
        let reasons = self.unknown_at.remove(name).unwrap_or_default();
        let mut reasons = reasons
            .into_iter()
            .flat_map(|(count, why)| std::iter::repeat_n(why, usize::try_from(count).unwrap_or(0)));
        let mut value = 0_u64;
        let column = changes.into_iter().map(|change| match change {
            Some(change) => {
                value = value.wrapping_add_signed(change);
                Ok(Ok(value))
            }
            None => reasons.next().map(Err).ok_or_else(|| format!("`{name}` has too few reasons")),
        });
        column.collect()
    }
}

/// Each known value's change from the known one before it, which is 0 at first.
fn changes(column: &[Reading]) -> Vec<Option<i64>> {
    let mut before = 0_u64;
    let change = |reading: &Reading| {
        let value = (*reading).ok()?;
        let change = value.wrapping_sub(before).cast_signed();
        before = value;
        Some(change)
    };
    column.iter().map(change).collect()
}

/// A series without unknowns, as changes.
pub(super) fn write_series(series: impl Iterator<Item = u64>) -> Vec<i64> {
    let mut before = 0_u64;
    let change = |value: u64| {
        let change = value.wrapping_sub(before).cast_signed();
        before = value;
        change
    };
    series.map(change).collect()
}

/// The series of these changes.
pub(super) fn read_series(changes: &[i64]) -> impl Iterator<Item = u64> {
    changes.iter().scan(0_u64, |value, change| {
        *value = value.wrapping_add_signed(*change);
        Some(*value)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_column_is_its_first_value_and_changes_and_its_unknowns_keep_their_reasons() {
        let mut columns = Columns::default();
        let failed = Err(Unknown::Failed);
        columns.write("a", &[Ok(100), failed, failed, Ok(90), Err(Unknown::Gone), Ok(u64::MAX)]);
        columns.write("b", &[failed; 6]);
        columns.write("c", &[]);
        assert_eq!(
            serde_json::to_value(&columns).unwrap(),
            json!({
                "values": {"a": [100, null, null, -10, null, -91]},
                "unknown": {"b": "failed"},
                "unknown_at": {"a": [[2, "failed"], [1, "gone"]]},
            })
        );
    }

    #[test]
    fn a_column_of_another_length_or_without_reasons_is_refused() {
        let read =
            |text: &str| serde_json::from_str::<Columns>(text).unwrap().read("a", 2).unwrap_err();
        assert_eq!(read(r#"{"values":{"a":[1]}}"#), "`a` has 1 values for 2 samples");
        assert_eq!(read("{}"), "`a` has 0 values for 2 samples");
        assert_eq!(read(r#"{"values":{"a":[1,null]}}"#), "`a` has too few reasons");
    }
}
