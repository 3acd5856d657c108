//! What a watched program said lately, as events that rules name: `watched.crash`, `watched.out_of_memory`.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::fleet::event::Level;
use crate::fleet::rule::matches;
use crate::watch::state::Watched;

/// The component of the events of watched programs.
const COMPONENT: &str = "watched";

/// What the program said last that a rule names, if that was within `keep`.
pub(super) fn lately(
    state: &Watched,
    (kind, level): (&str, Level),
    keep: Duration,
    now: Timestamp,
) -> Option<String> {
    let named = state.told.iter().filter(|(told, heard)| {
        told.level() >= level
            && matches(kind, &format!("{COMPONENT}.{}", told.as_str()))
            && !heard.is_old
            && now.since(heard.at) <= keep
    });
    named.max_by_key(|(_, heard)| heard.at).map(|(_, heard)| heard.text.clone())
}
