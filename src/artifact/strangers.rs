//! What strangers may read of a failure: a job's status goes to whoever listens, and where the owner's own services
//! are is nobody's business.
//!
//! Must hold: no address that only this host or its network can reach is left in the words.

use std::net::IpAddr;

use super::hop;

/// What stands in place of an address of the owner's.
const OWN: &str = "the node's own service";

/// The words without the addresses of services on this host, in its network, and of its proxy.
pub fn for_strangers(words: &str) -> String {
    let mut shown = String::with_capacity(words.len());
    let mut rest = words;
    while let Some(at) = rest.find("://") {
        let (before, after) = (&rest[..at], &rest[at + 3..]);
        let start = before
            .rfind(|c: char| !c.is_ascii_alphanumeric() && c != '+')
            .map_or(0, |it| it + before[it..].chars().next().map_or(1, char::len_utf8));
        let end = after.find(is_end).unwrap_or(after.len());
        // A colon at its end belongs to the sentence.
        let end = after[..end].trim_end_matches(':').len();
        let is_named = start < at;
        shown.push_str(&before[..if is_named { start } else { at }]);
        if is_named && is_own(&after[..end]) {
            shown.push_str(OWN);
        } else {
            shown.push_str(&rest[if is_named { start } else { at }..at + 3 + end]);
        }
        rest = &after[end..];
    }
    shown.push_str(rest);
    without_proxy(shown)
}

/// Whether a character ends an address within a sentence.
fn is_end(c: char) -> bool {
    c.is_whitespace() || matches!(c, ',' | ';' | ')' | '"' | '\'' | '<' | '>')
}

/// Whether `host:port/path` is reachable from here alone: a private address, or a name of a private network.
fn is_own(rest: &str) -> bool {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    if let Ok(address) = host.parse::<IpAddr>() {
        return !hop::is_public(address);
    }
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let private = [".localhost", ".local", ".internal", ".lan", ".home.arpa", ".intranet", ".corp"];
    !host.contains('.') || private.iter().any(|end| host.ends_with(end))
}

/// Without the name of the proxy, as [`crate::http::through`] tells it.
fn without_proxy(mut words: String) -> String {
    const HEAD: &str = "(through the proxy ";
    while let Some(at) = words.find(HEAD) {
        let end = words[at..].find(')').map_or(words.len(), |end| at + end + 1);
        words.replace_range(at..end, "(through a proxy)");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_the_owner_reaches_is_not_named_and_what_all_reach_is() {
        for (words, shown) in [
            ("http://127.0.0.1:8081 does not answer", "the node's own service does not answer"),
            (
                "no gateway gives X now: http://ipfs.lan:80: it answers 500; https://ipfs.io: gone",
                "no gateway gives X now: the node's own service: it answers 500; https://ipfs.io: gone",
            ),
            ("https://[fd00::1]:8443/x?y, so", "the node's own service, so"),
            ("https://user@10.1.2.3/ipfs", "the node's own service"),
            (
                "http://nas/ and http://[2606:4700::1111]/",
                "the node's own service and http://[2606:4700::1111]/",
            ),
            (
                "it answers 502 (through the proxy proxy.corp:3128)",
                "it answers 502 (through a proxy)",
            ),
            ("ü://é, :// and 🐝http://localhost", "ü://é, :// and 🐝the node's own service"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(for_strangers(words), shown);
        }
    }
}
