//! What a watched program says, and what it means. Pure.
//!
//! [`mod@line`] cleans and scrubs what was read, [`grammar`] makes records of lines, [`meaning`] says what a record
//! means, [`profile`] has all of this as data. [`checks`] has those of the original agent, [`discover`] makes a
//! configuration of what was found on a machine.
//!
//! Must hold: personal data leaves a line before anything else sees it; whatever a log or a profile holds,
//! time and memory are bounded.

pub mod checks;
pub mod discover;
pub mod expect;
pub mod grammar;
pub mod line;
pub mod meaning;
pub mod observation;
pub mod pattern;
pub mod profile;
pub mod rules;
pub mod scrub;
pub mod state;
pub mod verdict;
