//! Parses image references and classifies the engine's answers about images. Pure.
//!
//! Must hold: a reference is parsed once, before the engine hears of it, and always carries a tag or a digest
//! from then on: without either the engine would pull every tag of a repository. The grammar is that of the
//! distribution specification.

use std::fmt;
use std::str::FromStr;

/// Longest reference in bytes; the grammar's own bounds add up to less.
const REFERENCE_BYTES_MAX: usize = 512;
/// Longest name in bytes, without tag and digest.
const NAME_BYTES_MAX: usize = 255;
/// Longest tag in bytes.
const TAG_BYTES_MAX: usize = 128;
/// The registry of a name that has none.
const DEFAULT_REGISTRY: &str = "docker.io";

/// An image as a job names it: `[registry[:port]/]path[:tag][@sha256:…]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    name: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// Why a text is not the name of an image that could be pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the error texts describe the variants")]
pub enum InvalidReference {
    #[error("it is empty or longer than {REFERENCE_BYTES_MAX} bytes")]
    Length,
    #[error("its digest is not sha256: and 64 lower-case hex digits")]
    Digest,
    #[error("its tag is not 1 to {TAG_BYTES_MAX} of A-Za-z0-9_.-")]
    Tag,
    #[error("its registry is no host and port")]
    Registry,
    #[error("its name is not made of lower-case path components")]
    Name,
}

impl Reference {
    /// The name without tag and digest, as the engine's pull call wants it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What to pull: the digest, else the tag, else `latest`.
    pub(super) fn version(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }

    /// Tag and digest as they follow the name, each by itself; `:latest` if there is neither.
    pub(super) fn versions(&self) -> impl Iterator<Item = String> {
        let tag = self.tag.as_deref().or(self.digest.is_none().then_some("latest"));
        let tag = tag.map(|tag| format!(":{tag}"));
        tag.into_iter().chain(self.digest.as_ref().map(|digest| format!("@{digest}")))
    }

    /// Whether it always names the same image.
    pub(super) const fn has_digest(&self) -> bool {
        self.digest.is_some()
    }

    /// The name under which the engine finds the image once it is on this host.
    pub(super) fn local_name(&self) -> String {
        let mark = if self.digest.is_some() { '@' } else { ':' };
        format!("{}{mark}{}", self.name, self.version())
    }

    /// The name of this repository's image with this digest.
    pub(super) fn at(&self, digest: &str) -> String {
        format!("{}@{digest}", self.name)
    }

    /// The registry's host and port.
    pub(super) fn registry(&self) -> &str {
        split_registry(&self.name).0.unwrap_or(DEFAULT_REGISTRY)
    }

    /// The digest for the receipt: the manifest's digest in this repository, preferably the one asked for,
    /// else `image-id:` and the engine's id.
    pub(super) fn receipt_digest(&self, repo_digests: &[String], image_id: &str) -> String {
        let of_repository = repo_digests.iter().filter_map(|entry| {
            let (name, digest) = entry.split_once('@')?;
            (familiar(name) == familiar(&self.name)).then_some(digest)
        });
        let mut digests: Vec<&str> = of_repository.filter(|digest| is_digest(digest)).collect();
        digests.sort_unstable();
        let wanted = self.digest.as_deref();
        let matching = digests.iter().find(|digest| Some(**digest) == wanted);
        matching
            .or_else(|| digests.first())
            .map_or_else(|| format!("image-id:{image_id}"), |digest| (*digest).to_owned())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.len() > REFERENCE_BYTES_MAX {
            return Err(InvalidReference::Length);
        }
        let (rest, digest) = text.split_once('@').map_or((text, None), |(r, d)| (r, Some(d)));
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err(InvalidReference::Digest);
        }
        // A colon before the last slash belongs to the registry's port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(InvalidReference::Tag);
        }
        let (registry, path) = split_registry(name);
        if registry.is_some_and(|registry| !is_registry(registry)) {
            return Err(InvalidReference::Registry);
        }
        // The engine would look up `sha256:…` and bare ids among the images that happen to be on this host.
        let is_id = registry.is_none()
            && (path == "sha256" || (path.len() == 64 && path.bytes().all(is_lower_hex)));
        if is_id || name.len() > NAME_BYTES_MAX || !path.split('/').all(is_path_component) {
            return Err(InvalidReference::Name);
        }
        Ok(Self {
            name: name.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }
}

/// Whether asking again would give the same answer, judged by its status and its words.
pub(super) fn is_refusal(status: Option<u16>, words: &str) -> bool {
    const FINAL: [&str; 15] = [
        "manifest unknown",
        "manifest for",
        "name unknown",
        "repository name not known",
        "pull access denied",
        "requested access to the resource is denied",
        "unauthorized",
        "no basic auth credentials",
        "no matching manifest",
        "invalid reference format",
        "unsupported media type",
        // Windows images, and forms that this engine does not know yet or no longer supports.
        "cannot be used on this platform",
        "target is unknown",
        "manifest version 2, schema 1",
        // More layers than its storage can stack.
        "max depth exceeded",
    ];
    let words = words.to_ascii_lowercase();
    // Docker Hub's rate limit comes with words that are final elsewhere.
    if words.contains("toomanyrequests") {
        return false;
    }
    matches!(status, Some(400..=404))
        || is_beyond_users(&words)
        || FINAL.iter().any(|phrase| words.contains(phrase))
}

/// Whether a file of the image belongs to a user id that the rootless engine can't map.
pub(super) fn is_beyond_users(words: &str) -> bool {
    words.contains("lchown") && words.contains("invalid argument")
}

/// The first component is a registry if it has a dot or a port, or is `localhost`.
fn split_registry(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => {
            (Some(first), path)
        }
        _ => (None, name),
    }
}

/// One spelling per registry: host names are case-insensitive, and Docker Hub has two names.
pub(super) fn canonical_registry(registry: &str) -> String {
    let registry = registry.to_ascii_lowercase();
    if registry == "index.docker.io" { DEFAULT_REGISTRY.to_owned() } else { registry }
}

/// The short form under which the engine lists an image of the default registry.
pub(super) fn familiar(name: &str) -> &str {
    let name = ["docker.io/", "index.docker.io/"]
        .iter()
        .find_map(|registry| name.strip_prefix(registry))
        .unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

pub(super) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(is_lower_hex))
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= TAG_BYTES_MAX
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

pub(super) fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_fits = port.is_none_or(|port| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let ipv6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_fits = ipv6.map_or_else(
        || host.split('.').all(label),
        |address| address.parse::<std::net::Ipv6Addr>().is_ok(),
    );
    port_fits && host_fits
}

/// Lower-case letters and digits, joined by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let joints = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    text.bytes().next().is_some_and(plain)
        && text.bytes().last().is_some_and(plain)
        && joints
            .into_iter()
            .all(|joint| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "b93d53fb2e2c9a1f0bb1ae2d0b5e1c0f8b5c2a7d6e4f3a2b1c0d9e8f7a6b5c4d";

    #[test]
    fn a_reference_is_taken_apart_where_the_registry_has_a_port() {
        let digest = format!("sha256:{HEX}");
        for (text, registry, name, version) in [
            ("busybox", "docker.io", "busybox", "latest"),
            ("busybox:1.36", "docker.io", "busybox", "1.36"),
            ("user/app__x:v1", "docker.io", "user/app__x", "v1"),
            ("127.0.0.1:5000/t/busybox", "127.0.0.1:5000", "127.0.0.1:5000/t/busybox", "latest"),
            ("localhost/app", "localhost", "localhost/app", "latest"),
            ("[::1]:5000/app:a", "[::1]:5000", "[::1]:5000/app", "a"),
            (
                &format!("r.example:5000/a/b:tag@{digest}"),
                "r.example:5000",
                "r.example:5000/a/b",
                &digest,
            ),
        ] {
            let reference: Reference = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(reference.registry(), registry, "{text}");
            assert_eq!(reference.name(), name, "{text}");
            assert_eq!(reference.version(), version, "{text}");
            assert_eq!(reference.to_string(), text);
        }
    }

    #[test]
    fn rubbish_and_ids_are_refused() {
        let long = "a".repeat(256);
        for text in [
            "",
            " ",
            "Busybox",
            "a b",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a:-x",
            "a:b:c",
            "../x",
            "a..b",
            "a___b",
            "a?x=1",
            "a#b",
            "a%2f",
            "a\n",
            "host:port/a",
            "host:0/a",
            "host:99999/a",
            "-h.example/a",
            "a@sha256:12",
            "a@md5:d41d8cd98f00b204e9800998ecf8427e",
            &format!("a@sha256:{}", HEX.to_uppercase()),
            &format!("a@sha256:{HEX}@sha256:{HEX}"),
            HEX,
            &format!("sha256:{HEX}"),
            &long,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_receipt_says_the_digest_of_the_repository_that_was_asked() {
        let ours = format!("sha256:{HEX}");
        let theirs = format!("sha256:{}", "0".repeat(64));
        let listed = [format!("mirror.example/busybox@{theirs}"), format!("busybox@{ours}")];
        let said =
            |text: &str| text.parse::<Reference>().unwrap().receipt_digest(&listed, "sha256:1d");
        assert_eq!(said("docker.io/library/busybox"), ours);
        assert_eq!(said("mirror.example/busybox:2"), theirs);
        assert_eq!(said("built/here"), "image-id:sha256:1d");
    }

    #[test]
    fn only_answers_that_would_not_change_are_refusals() {
        for (status, words, refusal) in [
            (Some(404), "manifest unknown: manifest unknown", true),
            (
                None,
                "image operating system \"windows\" cannot be used on this platform: operating \
                 system is not supported",
                true,
            ),
            (None, "invalid rootfs in image configuration: target is unknown", true),
            (
                None,
                "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has \
                 been removed",
                true,
            ),
            (
                None,
                "failed to register layer: ApplyLayer exit status 1 stdout: stderr: lchown \
                 /var/x: invalid argument",
                true,
            ),
            (Some(500), "Head \"http://r/v2/\": unauthorized: authentication required", true),
            (Some(500), "Get \"http://r/v2/\": no basic auth credentials", true),
            (None, "no matching manifest for linux/amd64 in the manifest list entries", true),
            (Some(500), "dial tcp 127.0.0.1:5000: connect: connection refused", false),
            (Some(500), "toomanyrequests: You have reached your pull rate limit", false),
            (None, "failed to register layer: max depth exceeded", true),
            (None, "unexpected EOF", false),
            (None, "write /x: no space left on device", false),
        ] {
            assert_eq!(is_refusal(status, words), refusal, "{words}");
        }
    }
}
