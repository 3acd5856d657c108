//! Whose key speaks for which node, and which runs of the program were heard with a key.
//!
//! Invariants: a key speaks for one node; what is here was committed before, apart from runs: that one was heard
//! stays although the store failed to keep its beat, whose signer then signs a later one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::fleet::instances::{Clash, Instances};
use crate::fleet::signed::Refused;
use crate::ids::{Address, Hash};

/// The names of nodes by the keys that speak for them.
pub type Keys = HashMap<Address, String>;

/// How close to each other two programs are heard by turns if they run at once.
const BY_TURNS: Duration = Duration::from_mins(3);

/// After how many new keys those are forgotten that were not heard for long.
const SWEEP: usize = 1_024;

/// Keys and their runs. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Identities(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    keys: Keys,
    /// The same the other way round.
    names: HashMap<String, Address>,
    runs: HashMap<Address, Instances>,
}

impl Identities {
    /// Takes over which keys there are.
    pub fn set_keys(&self, keys: Keys) {
        let mut inner = self.lock();
        inner.names = keys.iter().map(|(key, name)| (name.clone(), *key)).collect();
        inner.keys = keys;
    }

    /// Takes over which runs were heard before.
    pub fn set_runs(&self, runs: HashMap<Address, Instances>) {
        self.lock().runs = runs;
    }

    /// From now on this key speaks for this node.
    pub fn bind(&self, key: Address, name: &str) {
        let mut inner = self.lock();
        let (node, other) =
            (inner.keys.insert(key, name.to_owned()), inner.names.insert(name.to_owned(), key));
        if let Some(node) = node.filter(|node| node != name) {
            inner.names.remove(&node);
        }
        if let Some(other) = other.filter(|other| *other != key) {
            inner.keys.remove(&other);
        }
    }

    /// The node that this key speaks for.
    pub fn name_of(&self, key: Address) -> Option<String> {
        self.lock().keys.get(&key).cloned()
    }

    /// Whether a key speaks for this node, so that nobody else does.
    pub fn is_bound(&self, name: &str) -> bool {
        self.lock().names.contains_key(name)
    }

    /// Gives a node's key to its new name, or to nobody.
    pub(super) fn move_node(&self, old: &str, new: Option<&str>) {
        let mut inner = self.lock();
        let Some(key) = inner.names.remove(old) else { return };
        if let Some(new) = new {
            inner.keys.insert(key, new.to_owned());
            inner.names.insert(new.to_owned(), key);
        } else {
            // Its runs stay: what it signed may be fresh still when its owner enrolls it again.
            inner.keys.remove(&key);
        }
    }

    /// A run of a key was heard; see [`Instances::hears`].
    pub fn hears(
        &self,
        key: Address,
        said: (Hash, Option<u64>),
        place: &str,
        now: Timestamp,
    ) -> Result<Option<Clash>, Refused> {
        let mut inner = self.lock();
        if inner.runs.len() % SWEEP == SWEEP - 1 && !inner.runs.contains_key(&key) {
            inner.runs.retain(|_, runs| !runs.is_over(now));
        }
        inner.runs.entry(key).or_default().hears(said, place, BY_TURNS, now)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_speaks_for_one_node_and_a_node_has_one_key() {
        let ids = Identities::default();
        let [one, two] = [1, 2].map(|byte| Address::new([byte; 20]));
        ids.bind(one, "a");
        ids.bind(one, "b");
        assert!(!ids.is_bound("a") && ids.is_bound("b"));
        ids.bind(two, "b");
        assert_eq!((ids.name_of(one), ids.name_of(two).as_deref()), (None, Some("b")));
        ids.move_node("b", Some("c"));
        assert!(!ids.is_bound("b") && ids.name_of(two).as_deref() == Some("c"));
        let now = Timestamp::from_unix_ms(1_800_000_000_000);
        let said = (Hash([7; 32]), Some(now.unix_ms()));
        assert_eq!(ids.hears(two, said, "p", now), Ok(None));
        ids.move_node("c", None);
        assert!(!ids.is_bound("c") && ids.name_of(two).is_none());
        assert_eq!(ids.hears(two, said, "p", now), Err(Refused::Replayed), "deleted, and back");
    }
}
