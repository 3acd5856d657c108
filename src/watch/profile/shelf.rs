//! The profiles that this program brings, and an owner's own in their place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{InvalidProfile, Profile, written};

/// The most profiles that an owner has.
const OWN_MAX: usize = 200;

/// The profiles of this program, by name.
const SHIPPED: [(&str, &str); 4] = [
    ("generic", include_str!("../../../profiles/generic.toml")),
    ("llama-cpp", include_str!("../../../profiles/llama-cpp.toml")),
    ("rl-swarm-hydra", include_str!("../../../profiles/rl-swarm-hydra.toml")),
    ("rl-swarm-legacy", include_str!("../../../profiles/rl-swarm-legacy.toml")),
];

/// The grammars that all profiles may name.
const GRAMMARS: &str = include_str!("../../../profiles/grammars/standard.toml");

/// All profiles that can be asked for. Each is read once: its patterns take some megabytes, which all programs that
/// are watched by it share.
#[derive(Debug, Clone)]
pub struct Shelf {
    texts: BTreeMap<String, String>,
    read: Arc<Mutex<BTreeMap<String, Profile>>>,
}

impl Default for Shelf {
    /// Those of this program.
    fn default() -> Self {
        let texts = SHIPPED.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Self { texts: texts.collect(), read: Arc::default() }
    }
}

impl Shelf {
    /// Puts an owner's file there, in place of one of the same name. `name` is what the file is called, without
    /// `.toml`. It is read only when it is asked for.
    pub fn put(&mut self, name: &str, text: String) -> Result<(), InvalidProfile> {
        if self.texts.len() >= OWN_MAX + SHIPPED.len() && !self.texts.contains_key(name) {
            return Err(InvalidProfile::new(
                name,
                format!("there are more than {OWN_MAX} profiles"),
            ));
        }
        self.texts.insert(name.to_owned(), text);
        // Another shelf may still hand out what was there.
        self.read = Arc::default();
        Ok(())
    }

    /// The names of all.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.texts.keys().map(String::as_str)
    }

    /// The text of a profile, to be shown or copied.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str)
    }

    /// Reads a profile.
    pub fn get(&self, name: &str) -> Result<Profile, InvalidProfile> {
        let Some(text) = self.texts.get(name) else {
            let there: Vec<&str> = self.names().collect();
            let what = format!("there is no such profile, only {}", there.join(", "));
            let shown = crate::report::one_line(name, 64);
            return Err(InvalidProfile::new(&shown, crate::report::one_line(&what, 500)));
        };
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(profile) = read.get(name) {
            return Ok(profile.clone());
        }
        let profile = Profile::parse(name, text)?;
        read.insert(name.to_owned(), profile.clone());
        Ok(profile)
    }
}

/// The grammars that all profiles may name.
pub(super) fn grammars() -> Result<Vec<written::Grammar>, String> {
    let file: written::Grammars = written::read(GRAMMARS)?;
    Ok(file.grammar)
}
