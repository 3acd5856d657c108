//! Which settings are secrets, judged by name and value: a file with one of them should be readable by its
//! owner only.
//!
//! Must hold: a setting that only names a file with a secret is not one.

/// Suffixes of the names of secrets.
const ENDS: [&str; 4] = ["_KEY", "_JWT", "_TOKEN", "_PASSWORD"];

/// Settings whose URLs may carry a user with a password, or a token.
const URLS: [&str; 10] = [
    "ALERT_WEBHOOK_URL",
    "NATS_URL",
    "NTFY_URL",
    "OPBNB_RPC_URL",
    "SMTP_URL",
    "IPFS_GATEWAYS",
    "PINATA_API_URL",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "ALL_PROXY",
];

/// The settings whose URLs have keys in their paths or queries with most providers.
const KEYED: [&str; 3] = ["ALERT_WEBHOOK_URL", "NTFY_URL", "OPBNB_RPC_URL"];

/// Whether this setting is a secret or contains one.
pub(super) fn is_secret(name: &str, value: &str) -> bool {
    if ENDS.iter().any(|end| name.ends_with(end)) {
        return !value.is_empty();
    }
    URLS.iter().any(|one| one.eq_ignore_ascii_case(name))
        && value.split(',').any(|url| carries_one(url.trim(), KEYED.contains(&name)))
}

/// Whether a URL carries a user or a token; with `keyed`, also whether anything follows its host.
fn carries_one(url: &str, keyed: bool) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (host, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    host.contains('@') || (keyed && !behind.trim_end_matches('/').is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_by_its_name_or_by_what_a_url_carries() {
        for (name, value) in [
            ("AGENT_PRIVATE_KEY", "0x12"),
            ("PINATA_JWT", "ey"),
            ("NATS_URL", "nats://token@h:4222"),
            ("NATS_URL", "nats://a, nats://u:p@b"),
            ("OPBNB_RPC_URL", "https://u:p@rpc.example"),
            ("OPBNB_RPC_URL", "https://rpc.example,https://opbnb.example/v1/0123456789abcdef"),
            ("OPBNB_RPC_URL", "https://rpc.example?apikey=0123"),
            ("SMTP_URL", "smtps://u:p@mail.example"),
            ("NTFY_URL", "https://ntfy.sh/topic"),
            ("ALERT_WEBHOOK_URL", "https://hooks.example/services/T0/B0/x"),
            ("TELEGRAM_BOT_TOKEN", "1:AA"),
            ("IPFS_GATEWAYS", "https://a.example,https://u:p@b.example/ipfs"),
            ("PINATA_API_URL", "http://u:p@127.0.0.1:8400"),
            ("https_proxy", "http://u:p@proxy.example:3128"),
        ] {
            assert!(is_secret(name, value), "{name}={value}");
        }
        for (name, value) in [
            ("PINATA_JWT", ""),
            ("AGENT_KEYSTORE_PASSPHRASE_FILE", "/x"),
            ("NATS_URL", "nats://h:4222"),
            ("SMTP_URL", "smtp://127.0.0.1"),
            ("OPBNB_RPC_URL", "https://rpc.example/, http://127.0.0.1:8545"),
            ("IPFS_GATEWAYS", "https://a.example/ipfs/@x"),
            ("PINATA_API_URL", "https://api.pinata.cloud"),
            ("AGENT_POOLS", "u@b"),
        ] {
            assert!(!is_secret(name, value), "{name}={value}");
        }
    }
}
