//! Reads variables and collects every problem instead of stopping at the first.
//!
//! Must hold: a problem names its variable, says what is wrong and gives an example; it never contains the
//! value of a secret.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs::Metadata;
use std::hash::BuildHasher;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use zeroize::Zeroizing;

use super::duration;
use crate::secret::Secret;

/// Longest secret that is read from a file; any key, token or password is far shorter.
const SECRET_BYTES_MAX: usize = 16 * 1024;
/// A longer wrong value is not quoted: it may be something that was pasted into the wrong line.
const SHOWN_CHARS_MAX: usize = 24;

/// Where variables come from: the process and its `.env`, or a map in tests.
pub trait Lookup {
    /// The value, which may be empty; `None` if the variable is not set.
    fn get(&self, name: &str) -> Option<String>;

    /// Whether somebody at a terminal can be asked for what is not set.
    fn can_ask(&self) -> bool {
        false
    }
}

impl<S: BuildHasher> Lookup for HashMap<String, String, S> {
    fn get(&self, name: &str) -> Option<String> {
        self.get(name).cloned()
    }
}

/// A variable's name, with an example of a valid value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Variable {
    pub(super) name: &'static str,
    pub(super) example: &'static str,
}

impl Variable {
    pub(super) const fn new(name: &'static str, example: &'static str) -> Self {
        Self { name, example }
    }
}

/// What is wrong with one variable.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The name of the variable.
    pub variable: String,
    /// What is wrong, as one sentence without the variable's name.
    pub what: String,
    /// A valid line, such as `NAME=value`.
    pub example: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; for example: {}", self.variable, self.what, self.example)
    }
}

/// All problems of the settings. The program then exits with 64.
#[derive(Debug, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let things = if self.0.len() == 1 { "one setting is" } else { "these settings are" };
        write!(f, "{things} wrong or missing (environment, or .env in the working directory):")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// Reads variables and keeps the problems of those that were read.
pub struct Env<'a> {
    lookup: &'a dyn Lookup,
    problems: Vec<Problem>,
    warnings: Vec<String>,
    asked: BTreeSet<&'static str>,
}

impl fmt::Debug for Env<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env").field("problems", &self.problems).finish_non_exhaustive()
    }
}

impl<'a> Env<'a> {
    /// A reader of `lookup`, without problems so far.
    pub fn new(lookup: &'a dyn Lookup) -> Self {
        let (problems, warnings, asked) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self { lookup, problems, warnings, asked }
    }

    /// Returns the warnings, one sentence each, about values that are valid but unwise. Empties the list.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Adds problems of the variables' source itself.
    pub fn note(&mut self, problems: &[Problem]) {
        self.problems.extend_from_slice(problems);
    }

    /// Returns the problems so far. Empties the list.
    pub fn take_problems(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.problems)
    }

    /// `value`, if nothing that was read so far has a problem; else all problems.
    pub fn finish<T>(&mut self, value: Option<T>) -> Result<T, Problems> {
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => Err(Problems(self.take_problems())),
        }
    }

    /// The names of the variables that were read.
    #[cfg(test)]
    pub(super) fn asked(&self) -> &BTreeSet<&'static str> {
        &self.asked
    }

    pub(super) fn problem(&mut self, variable: Variable, what: impl Into<String>) {
        let example = format!("{}={}", variable.name, variable.example);
        self.problem_with(variable, what, example);
    }

    /// Adds a problem whose remedy is not the variable's own example.
    pub(super) fn problem_with(
        &mut self,
        variable: Variable,
        what: impl Into<String>,
        example: impl Into<String>,
    ) {
        let (what, example) = (what.into(), example.into());
        self.problems.push(Problem { variable: variable.name.to_owned(), what, example });
    }

    /// Adds warnings about the variables' source itself.
    pub fn warn_of(&mut self, warnings: &[String]) {
        self.warnings.extend_from_slice(warnings);
    }

    pub(super) fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// The trimmed text; `None` if it is not set or empty. A placeholder from an example file is a problem,
    /// and `None`.
    pub(super) fn text(&mut self, variable: Variable) -> Option<String> {
        self.asked.insert(variable.name);
        let text = Zeroizing::new(self.lookup.get(variable.name)?);
        let text = text.trim();
        if is_placeholder(text) {
            self.problem(variable, "it still holds the example's placeholder");
            return None;
        }
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Whether it is set to anything but whitespace.
    pub(super) fn is_set(&mut self, variable: Variable) -> bool {
        self.asked.insert(variable.name);
        let text = self.lookup.get(variable.name).map(Zeroizing::new);
        text.is_some_and(|text| !text.trim().is_empty())
    }

    /// Whether somebody can be asked for what is not set.
    pub(super) fn can_ask(&self) -> bool {
        self.lookup.can_ask()
    }

    /// A secret; see [`Env::text`].
    pub(super) fn secret(&mut self, variable: Variable) -> Option<Secret> {
        self.text(variable).map(Secret::new)
    }

    /// The variable of the same name in lower case, as `https_proxy` often is.
    pub(super) fn lower_case(&self, variable: Variable) -> Option<String> {
        self.lookup.get(&variable.name.to_ascii_lowercase()).filter(|text| !text.trim().is_empty())
    }

    /// The parsed value; `None` if it is not set or invalid.
    pub(super) fn parsed<T: FromStr<Err: fmt::Display>>(
        &mut self,
        variable: Variable,
    ) -> Option<T> {
        let text = self.text(variable)?;
        self.keep(variable, text.parse().map_err(|err| format!("{}: {err}", shown(&text))))
    }

    /// A whole number from `min` to `max`; `None` if it is invalid.
    pub(super) fn number(
        &mut self,
        variable: Variable,
        (min, max): (u64, u64),
        default: u64,
    ) -> Option<u64> {
        let Some(text) = self.clean(variable)? else { return Some(default) };
        let number = text.parse().ok().filter(|number| (min..=max).contains(number));
        let what = || format!("{} is not a whole number from {min} to {max}", shown(&text));
        self.keep(variable, number.ok_or_else(what))
    }

    /// A whole number of seconds; see [`Env::number`].
    pub(super) fn seconds(
        &mut self,
        variable: Variable,
        bounds: (u64, u64),
        default: u64,
    ) -> Option<Duration> {
        self.number(variable, bounds, default).map(Duration::from_secs)
    }

    /// A duration in Go's notation, from `min` to `max`; `None` if it is invalid.
    pub(super) fn span(
        &mut self,
        variable: Variable,
        (min, max): (Duration, Duration),
        default: Duration,
    ) -> Option<Duration> {
        let Some(text) = self.clean(variable)? else { return Some(default) };
        let span = duration::parse(&text).map_err(|err| format!("{}: {err}", shown(&text)));
        let span = span.and_then(|span| {
            let what = || format!("{} is not between {min:?} and {max:?}", shown(&text));
            (min..=max).contains(&span).then_some(span).ok_or_else(what)
        });
        self.keep(variable, span)
    }

    /// One of a few words, in any case, each with its meaning; the first is the default.
    pub(super) fn choice<T: Copy>(
        &mut self,
        variable: Variable,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let text = self.clean(variable)?;
        let text = text.as_deref().unwrap_or(choices[0].0).to_ascii_lowercase();
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let what = || format!("{} is none of: {}", shown(&text), words.join(", "));
        self.keep(variable, found.ok_or_else(what))
    }

    /// A comma list without its empty parts.
    pub(super) fn list(&mut self, variable: Variable) -> Vec<String> {
        let text = self.text(variable).unwrap_or_default();
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    /// Whether it is set, but to nothing. A list of who or what may do something must not be empty then:
    /// whoever wrote it (`LIST=$NAMES` of a shell, for example) meant to name some.
    pub(super) fn is_blank(&mut self, variable: Variable) -> bool {
        self.asked.insert(variable.name);
        let text = self.lookup.get(variable.name).map(Zeroizing::new);
        text.is_some_and(|text| text.trim().is_empty())
    }

    /// A path; `None` if it is not set or invalid. A leading `~/` means this user's home, as in a shell;
    /// nothing else of a shell's is expanded.
    pub(super) fn path(&mut self, variable: Variable) -> Option<PathBuf> {
        let text = self.text(variable)?;
        let home = match text.strip_prefix('~') {
            Some("") => Some(""),
            Some(rest) => rest.strip_prefix('/'),
            None if text.starts_with('$') => {
                self.problem(variable, "it begins with a $, and nothing is put in place of that");
                return None;
            }
            None => return Some(PathBuf::from(text)),
        };
        match (home, self.lookup.get("HOME").filter(|home| home.starts_with('/'))) {
            (Some(""), Some(home)) => Some(PathBuf::from(home)),
            (Some(rest), Some(home)) => Some(PathBuf::from(home).join(rest)),
            (Some(_), None) => {
                self.problem(variable, "it begins with ~, but HOME is not set");
                None
            }
            (None, _) => {
                self.problem(variable, "it begins with ~, which means a home only before a /");
                None
            }
        }
    }

    /// The first line of the file that the variable names.
    pub(super) fn secret_file(&mut self, variable: Variable) -> Option<Secret> {
        let path = self.path(variable)?;
        self.keep(variable, read_secret(&path))
    }

    /// The text; `Some(None)` if it is not set, `None` if it has a problem, which is noted already.
    #[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
    fn clean(&mut self, variable: Variable) -> Option<Option<String>> {
        let set = self.is_set(variable);
        let text = self.text(variable);
        if set && text.is_none() { None } else { Some(text) }
    }

    /// The value, or `None` after noting its problem.
    pub(super) fn keep<T>(&mut self, variable: Variable, value: Result<T, String>) -> Option<T> {
        value.map_err(|what| self.problem(variable, what)).ok()
    }
}

/// Reads the first line of a small file, without its line end. A file that others can read is refused, as ssh
/// does with keys.
pub fn read_secret(path: &Path) -> Result<Secret, String> {
    let unreadable = |err: std::io::Error| format!("{} can't be read: {err}", path.display());
    let file = std::fs::File::open(path).map_err(unreadable)?;
    is_private(path, &file.metadata().map_err(unreadable)?)?;
    let secret = Secret::read_line(file, SECRET_BYTES_MAX).map_err(unreadable)?;
    if secret.expose().trim().is_empty() {
        return Err(format!("the first line of {} is empty", path.display()));
    }
    Ok(secret)
}

/// `Err` if others than the right users can read or change the file. If the file belongs to another user, its
/// group may: that is how a service manager or an administrator hands a secret to a service.
pub(super) fn is_private(path: &Path, metadata: &Metadata) -> Result<(), String> {
    let own = metadata.uid() == rustix::process::geteuid().as_raw();
    let others = if own { 0o077 } else { 0o007 };
    // Only regular files are checked: the mode of a pipe or a device says nothing about a stored secret.
    if !metadata.is_file() || metadata.mode() & others == 0 {
        return Ok(());
    }
    let (path, mode) = (path.display(), metadata.mode() & 0o777);
    Err(format!("{path} is open to others (mode {mode:04o}): run `chmod 600` on it"))
}

/// A wrong value as a message may show it: quoted and escaped if it is short, else not at all.
pub(super) fn shown(text: &str) -> String {
    if text.chars().count() > SHOWN_CHARS_MAX {
        return "the value".to_owned();
    }
    format!("\"{}\"", text.escape_debug())
}

/// What example files have in place of a value, such as `your_private_key_here` or `<token>`.
fn is_placeholder(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let seeds = lower.starts_with("your_") && lower.ends_with("_here");
    seeds || (lower.starts_with('<') && lower.ends_with('>'))
}
