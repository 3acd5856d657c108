//! Whose token is right: that of all nodes, that of one node, that of the owner.
//!
//! Invariants: tokens are compared by their hashes, in constant time; a node that has a secret of its own is not
//! believed for the shared one, so that no other node can speak for it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::hub::settings::{Public, Settings};
use crate::hub::store::nodes::Hash;
use crate::secret::Secret;
use crate::web;
use crate::web::http::{HeaderMap, header};

/// The longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 1_024;

/// The tokens that are right, by their hashes. Clones share them.
#[derive(Debug, Clone)]
pub struct Tokens {
    shared: Hash,
    admin: Option<Hash>,
    public: Public,
    is_only_here: bool,
    nodes: Arc<RwLock<HashMap<String, Hash>>>,
}

/// The SHA-256 of a secret.
pub fn hash(secret: &str) -> Hash {
    Sha256::digest(secret.as_bytes()).into()
}

impl Tokens {
    /// Those of the settings, and of these nodes.
    pub fn new(settings: &Settings, nodes: HashMap<String, Hash>) -> Self {
        let of = |secret: &Secret| hash(secret.expose());
        Self {
            shared: of(&settings.shared_secret),
            admin: settings.admin_token.as_ref().map(of),
            public: settings.public,
            is_only_here: settings.is_only_here,
            nodes: Arc::new(RwLock::new(nodes)),
        }
    }

    /// Takes the nodes' own secrets anew.
    pub fn set_nodes(&self, nodes: HashMap<String, Hash>) {
        *self.nodes.write().unwrap_or_else(PoisonError::into_inner) = nodes;
    }

    /// Takes a node's own secret, by its hash.
    pub(super) fn set_node(&self, node: &str, secret: Hash) {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        nodes.insert(node.to_owned(), secret);
    }

    /// Whether this node has a secret of its own.
    pub(super) fn has_node(&self, node: &str) -> bool {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).contains_key(node)
    }

    /// Gives a node's secret to its new name, or to nobody.
    pub(super) fn move_node(&self, old: &str, new: Option<&str>) {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        if let (Some(hash), Some(new)) = (nodes.remove(old), new) {
            nodes.insert(new.to_owned(), hash);
        }
    }

    /// Whether who sent this head may speak for this node; `None`: for a node whose name can't be read.
    pub fn may_beat(&self, head: &HeaderMap, node: Option<&str>) -> bool {
        let Some(token) = bearer(head) else { return false };
        let token = hash(token);
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        let right = node.and_then(|node| nodes.get(node)).unwrap_or(&self.shared);
        is_same(&token, right)
    }

    /// Whether who sent this head may change nodes.
    pub fn is_admin(&self, head: &HeaderMap) -> bool {
        let token = bearer(head).map(hash);
        token.zip(self.admin).is_some_and(|(token, admin)| is_same(&token, &admin))
    }

    /// Whether who sent this head reads what jobs write, by a token or because only this machine can ask: the output of
    /// strangers' jobs is more than the owner says of machines, so `HUB_PUBLIC=full` alone does not show it.
    pub fn reads_logs(&self, head: &HeaderMap) -> bool {
        let is_here = self.is_only_here && self.public == Public::Full && is_here(head);
        is_here || self.is_admin(head)
    }

    /// What who sent this head may see.
    pub fn sight(&self, head: &HeaderMap) -> Public {
        if self.is_admin(head) {
            return Public::Full;
        }
        if self.is_only_here && !is_here(head) { Public::Off } else { self.public }
    }
}

/// Whether the page of this machine is asked for, by its own name, and not through a proxy.
pub(super) fn is_here(head: &HeaderMap) -> bool {
    let proxies = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"];
    web::names_this_machine(head) && !proxies.iter().any(|name| head.contains_key(*name))
}

fn is_same(one: &Hash, other: &Hash) -> bool {
    one.as_slice().ct_eq(other.as_slice()).into()
}

/// The token of `Authorization: Bearer TOKEN`.
fn bearer(head: &HeaderMap) -> Option<&str> {
    let mut words = head.get(header::AUTHORIZATION)?.to_str().ok()?.split_ascii_whitespace();
    let (scheme, token) = (words.next()?, words.next()?);
    let is_right = scheme.eq_ignore_ascii_case("bearer") && words.next().is_none();
    Some(token).filter(|token| is_right && token.len() <= TOKEN_BYTES_MAX)
}

/// Whether there is any token at all: without one, nothing of the body is read.
pub(super) fn has_token(head: &HeaderMap) -> bool {
    bearer(head).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(public: Public) -> Settings {
        Settings {
            listen: ([127, 0, 0, 1], 0).into(),
            title: String::new(),
            shared_secret: Secret::new("shared-secret"),
            admin_token: Some(Secret::new("admin-token")),
            down_threshold: std::time::Duration::from_mins(3),
            prune: None,
            db: "hub.db".into(),
            public,
            is_only_here: false,
            takes_chains_keys: true,
            rules: Vec::new(),
            without: Vec::new(),
        }
    }

    fn head(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn a_node_with_a_secret_of_its_own_is_believed_for_that_alone() {
        let own = HashMap::from([("a".to_owned(), hash("secret-of-a"))]);
        let tokens = Tokens::new(&settings(Public::Full), own);
        let may = |value: &str, node: &str| tokens.may_beat(&head(value), Some(node));
        assert!(may("Bearer secret-of-a", "a") && !may("Bearer shared-secret", "a"));
        assert!(may("bearer  shared-secret", "b") && !may("Bearer secret-of-a", "b"));
        for wrong in
            ["", "shared-secret", "Basic shared-secret", "Bearer", "Bearer shared-secret x"]
        {
            assert!(!may(wrong, "b"), "{wrong}");
        }
        assert!(!tokens.may_beat(&HeaderMap::new(), Some("b")));
        tokens.move_node("a", Some("c"));
        assert!(may("Bearer secret-of-a", "c") && may("Bearer shared-secret", "a"));
    }

    #[test]
    fn what_nobody_said_to_be_public_is_shown_on_this_machine_alone() {
        let only_here = Settings { is_only_here: true, ..settings(Public::Full) };
        let tokens = Tokens::new(&only_here, HashMap::new());
        let asks = |heads: &[(&'static str, &str)]| {
            let pairs = heads.iter().map(|(name, value)| {
                (header::HeaderName::from_static(name), value.parse().unwrap())
            });
            tokens.sight(&pairs.collect::<HeaderMap>())
        };
        for host in ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST"] {
            assert_eq!(asks(&[("host", host)]), Public::Full, "{host}");
        }
        let here = HeaderMap::from_iter([(header::HOST, "localhost:8080".parse().unwrap())]);
        let elsewhere = HeaderMap::from_iter([(header::HOST, "hub.example".parse().unwrap())]);
        assert!(tokens.reads_logs(&here) && !tokens.reads_logs(&elsewhere));
        assert!(tokens.reads_logs(&head("Bearer admin-token")));
        let public = Tokens::new(&settings(Public::Full), HashMap::new());
        assert!(!public.reads_logs(&here), "whom a proxy brings may look like this machine");
        for heads in [
            &[("host", "evil.example:8080")][..],
            &[],
            &[("host", "127.0.0.1:8080"), ("x-forwarded-for", "203.0.113.1")],
        ] {
            assert_eq!(asks(heads), Public::Off, "{heads:?}");
        }
        let admin = [("host", "hub.example"), ("authorization", "Bearer admin-token")];
        assert_eq!(asks(&admin), Public::Full);
    }

    #[test]
    fn only_the_admins_token_is_an_admins_and_shows_what_the_public_does_not_see() {
        let tokens = Tokens::new(&settings(Public::Status), HashMap::new());
        assert!(tokens.is_admin(&head("Bearer admin-token")));
        assert!(!tokens.is_admin(&head("Bearer shared-secret")));
        assert_eq!(tokens.sight(&head("Bearer admin-token")), Public::Full);
        assert_eq!(tokens.sight(&HeaderMap::new()), Public::Status);
        let none = Settings { admin_token: None, ..settings(Public::Off) };
        assert!(!Tokens::new(&none, HashMap::new()).is_admin(&head("Bearer ")));
    }
}
