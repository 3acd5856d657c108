//! The profiles that this program brings, and an owner's own in their place.

use std::collections::BTreeMap;

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

/// All profiles that can be asked for.
#[derive(Debug, Clone)]
pub struct Shelf(BTreeMap<String, String>);

impl Default for Shelf {
    /// Those of this program.
    fn default() -> Self {
        Self(SHIPPED.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
    }
}

impl Shelf {
    /// Puts an owner's file there, in place of one of the same name. `name` is what the file is called, without
    /// `.toml`. It is read only when it is asked for.
    pub fn put(&mut self, name: &str, text: String) -> Result<(), InvalidProfile> {
        if self.0.len() >= OWN_MAX + SHIPPED.len() && !self.0.contains_key(name) {
            return Err(InvalidProfile::new(
                name,
                format!("there are more than {OWN_MAX} profiles"),
            ));
        }
        self.0.insert(name.to_owned(), text);
        Ok(())
    }

    /// The names of all.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The text of a profile, to be shown or copied.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Reads a profile.
    pub fn get(&self, name: &str) -> Result<Profile, InvalidProfile> {
        let shown = crate::report::one_line(name, 64);
        let Some(text) = self.0.get(name) else {
            let there: Vec<&str> = self.names().collect();
            let what = format!("there is no such profile, only {}", there.join(", "));
            return Err(InvalidProfile::new(&shown, crate::report::one_line(&what, 500)));
        };
        Profile::parse(name, text)
    }
}

/// The grammars that all profiles may name.
pub(super) fn grammars() -> Result<Vec<written::Grammar>, String> {
    let file: written::Grammars = written::read(GRAMMARS)?;
    Ok(file.grammar)
}
