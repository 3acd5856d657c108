//! Which images strangers may name: from which registries, and which of those already on this host. Pure.
//!
//! Must hold: the engine is never asked about a registry that the owner does not allow, since it asks from
//! the host's network; strangers never get an image merely because it is on this host: the owner's patterns
//! must name it, or its registry must have given it to this node (`docker/pull.rs`).

use super::image::{InvalidReference, Reference, canonical_registry, familiar, is_registry};

/// The well-known public registries: those that jobs may name if the owner sets none.
pub const PUBLIC_REGISTRIES: [&str; 8] = [
    "docker.io",
    "ghcr.io",
    "quay.io",
    "nvcr.io",
    "registry.k8s.io",
    "public.ecr.aws",
    "mcr.microsoft.com",
    "registry.gitlab.com",
];

/// The entry that stands for every registry.
const EVERY: &str = "*";

/// The owner's settings `JOB_REGISTRIES` and `JOB_LOCAL_IMAGES`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePolicy {
    /// Canonical hosts with their ports; `None` allows every registry.
    registries: Option<Vec<String>>,
    local: Vec<Pattern>,
    /// If any are set, a pulled image has to match one.
    allow: Vec<NamePattern>,
    deny: Vec<NamePattern>,
    needs_digest: bool,
}

/// Why a job's image is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// The name is not an image reference.
    #[error("the image's name is no image reference: {0}")]
    Invalid(InvalidReference),
    /// The owner does not allow images of this registry.
    #[error(
        "this node takes no images of the registry `{registry}` (it takes those of: {allowed})"
    )]
    Registry {
        /// The registry as the job names it.
        registry: String,
        /// The registries that are allowed, for the message.
        allowed: String,
    },
    /// The owner's list of denied images has it.
    #[error("this node's owner does not allow this image")]
    Denied,
    /// The owner's list of allowed images does not have it.
    #[error("this node takes only images of its owner's list, and this one is not on it")]
    Unlisted,
    /// The owner's key did not sign it.
    #[error("this node takes only images that its owner's key signed, and of this one: {0}")]
    Unsigned(String),
    /// The owner wants images named by digest.
    #[error("this node takes images by their digest only: name it as NAME@sha256:…")]
    NoDigest,
}

/// An image's name, in which `*` matches any characters; without a tag or digest it means every version.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NamePattern {
    pattern: Pattern,
    is_versioned: bool,
}

/// An image's name and tag, in which `*` matches any characters.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern(String);

impl Default for ImagePolicy {
    fn default() -> Self {
        let registries = PUBLIC_REGISTRIES.iter().map(|host| (*host).to_owned()).collect();
        Self {
            registries: Some(registries),
            local: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            needs_digest: false,
        }
    }
}

impl ImagePolicy {
    /// Allows images of these registries (`*` for all), and images on this host that match these patterns.
    /// `Err` describes the first invalid entry.
    pub fn new<T: AsRef<str>>(registries: &[T], local: &[T]) -> Result<Self, String> {
        let all = registries.iter().any(|entry| entry.as_ref() == EVERY);
        let hosts = registries.iter().map(AsRef::as_ref).filter(|entry| *entry != EVERY);
        let hosts: Vec<String> = hosts.map(host).collect::<Result<_, _>>()?;
        let local = local.iter().map(|entry| Pattern::new(entry.as_ref()));
        let registries = (!all).then_some(hosts);
        Ok(Self { registries, local: local.collect::<Result<_, _>>()?, ..Self::default() })
    }

    /// Allows of the registries' images only those that match one of `allow`, if there are any, and none that
    /// matches one of `deny`, which holds for images on this host too. `Err` describes the first invalid entry.
    pub fn with_lists<T: AsRef<str>>(self, allow: &[T], deny: &[T]) -> Result<Self, String> {
        let all = |list: &[T]| list.iter().map(|entry| NamePattern::new(entry.as_ref())).collect();
        let allow: Result<_, String> = all(allow);
        let deny: Result<_, String> = all(deny);
        Ok(Self { allow: allow?, deny: deny?, ..self })
    }

    /// Requires that a job names the image of a registry by its digest.
    #[must_use]
    pub fn with_digests(self, needs_digest: bool) -> Self {
        Self { needs_digest, ..self }
    }

    /// Whether a job may name this image on this node; `Err` says why not.
    pub fn check(&self, image: &str) -> Result<(), NotAllowed> {
        let reference: Reference = image.parse().map_err(NotAllowed::Invalid)?;
        let forms = Forms::of(&reference);
        if self.deny.iter().any(|pattern| pattern.fits(&forms)) {
            return Err(NotAllowed::Denied);
        }
        if self.allows_local(&reference) {
            return Ok(());
        }
        if self.allows_pull(&reference) {
            let is_listed = self.allow.is_empty() || self.allow.iter().any(|it| it.fits(&forms));
            return match () {
                () if !is_listed => Err(NotAllowed::Unlisted),
                () if self.needs_digest && !reference.has_digest() => Err(NotAllowed::NoDigest),
                () => Ok(()),
            };
        }
        let allowed = self.registries.as_deref().unwrap_or_default();
        let allowed = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
        Err(NotAllowed::Registry { registry: reference.registry().to_owned(), allowed })
    }

    /// Whether the engine may be asked to pull it from its registry.
    pub(super) fn allows_pull(&self, reference: &Reference) -> bool {
        let Some(registries) = &self.registries else { return true };
        registries.contains(&canonical_registry(reference.registry()))
    }

    /// Whether it may be used if it is on this host already, whatever its registry.
    pub(super) fn allows_local(&self, reference: &Reference) -> bool {
        let name = reference.local_name();
        self.local.iter().any(|pattern| pattern.fits(familiar(&name)))
    }
}

fn host(entry: &str) -> Result<String, String> {
    // As the first part of a reference, a host without dot or port is read as a path, except for `localhost`.
    let named = entry.contains(['.', ':']) || entry.eq_ignore_ascii_case("localhost");
    let what = || format!("`{entry}` is no registry's host[:port]");
    (named && is_registry(entry)).then(|| canonical_registry(entry)).ok_or_else(what)
}

/// The ways in which a pattern may name an image.
struct Forms {
    name: String,
    versions: Vec<String>,
}

impl Forms {
    fn of(reference: &Reference) -> Self {
        // One spelling a name, or a list of denied ones would be easy to pass by.
        let registry = canonical_registry(reference.registry());
        let name = match reference.name().split_once('/') {
            Some((host, path)) if host.eq_ignore_ascii_case(reference.registry()) => {
                format!("{registry}/{path}")
            }
            _ => reference.name().to_owned(),
        };
        let name = familiar(&name).to_owned();
        let versions = reference.versions();
        let versions = versions.map(|version| format!("{name}{version}")).collect();
        Self { name, versions }
    }
}

impl NamePattern {
    fn new(entry: &str) -> Result<Self, String> {
        // Checks the entry, and completes its tag.
        Pattern::new(entry)?;
        let (host, rest) = entry.split_once('/').unwrap_or(("", entry));
        let entry = if host.is_empty() {
            rest.to_owned()
        } else {
            format!("{}/{rest}", host.to_ascii_lowercase())
        };
        let entry = familiar(&entry);
        let last = entry.rsplit('/').next().unwrap_or(entry);
        let is_versioned = last.contains([':', '@']);
        Ok(Self { pattern: Pattern(entry.to_owned()), is_versioned })
    }

    fn fits(&self, forms: &Forms) -> bool {
        let by_version = || forms.versions.iter().any(|version| self.pattern.fits(version));
        if self.is_versioned { by_version() } else { self.pattern.fits(&forms.name) }
    }
}

impl Pattern {
    fn new(entry: &str) -> Result<Self, String> {
        let plain = entry.bytes().all(|b| b.is_ascii_graphic()) && !entry.contains("**");
        if !plain || entry.is_empty() || entry.len() > 512 {
            return Err(format!("`{}` is no image's name with `*`", entry.escape_debug()));
        }
        let entry = familiar(entry);
        let last = entry.rsplit('/').next().unwrap_or(entry);
        // As in Docker's commands, a name without a tag means `latest`.
        let complete = last.contains([':', '@']) || entry.ends_with('*');
        Ok(Self(if complete { entry.to_owned() } else { format!("{entry}:latest") }))
    }

    /// Each `*` matches as little as possible; only the part after the last one must match the end.
    fn fits(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            let Some((_, behind)) = rest.split_once(part) else { return false };
            rest = behind;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "b93d53fb2e2c9a1f0bb1ae2d0b5e1c0f8b5c2a7d6e4f3a2b1c0d9e8f7a6b5c4d";

    fn policy(registries: &[&str], local: &[&str]) -> ImagePolicy {
        ImagePolicy::new(registries, local).unwrap()
    }

    #[test]
    fn only_the_public_registries_are_asked_where_the_owner_says_nothing() {
        let policy = ImagePolicy::default();
        for image in [
            "busybox",
            "user/app:1",
            "docker.io/library/busybox",
            "index.docker.io/library/busybox:1",
            "GHCR.io/a/b",
            "nvcr.io/nvidia/cuda:12.4.0-base-ubuntu22.04",
            &format!("quay.io/a/b@sha256:{HEX}"),
        ] {
            assert_eq!(policy.check(image), Ok(()), "{image}");
        }
        for image in [
            "10.0.0.5:22/x",
            "169.254.169.254/x",
            "127.0.0.1:5000/x",
            "localhost/x",
            "localhost:5000/x",
            "[::1]:5000/x",
            "[::ffff:169.254.169.254]/x",
            "router.lan/x",
            "docker.io.evil.example/x",
            "docker.io:2375/x",
            "ghcr.io:443/x",
            "registry-1.docker.io/library/x",
            &format!("10.0.0.5/x:1@sha256:{HEX}"),
        ] {
            assert!(matches!(policy.check(image), Err(NotAllowed::Registry { .. })), "{image}");
        }
        for image in ["", "a b", "http://10.0.0.5/x", "user@10.0.0.5/x", "ghcr.io./x", "2130706433"]
        {
            let told = policy.check(image);
            // A bare number is a repository of Docker Hub, not an address.
            assert_eq!(told.is_ok(), image == "2130706433", "{image}: {told:?}");
        }
    }

    #[test]
    fn the_owners_list_takes_the_place_of_the_public_ones() {
        let own = policy(&["registry.example:5000", "INDEX.docker.io"], &[]);
        for image in ["registry.example:5000/x", "Registry.Example:5000/x", "docker.io/x", "x"] {
            assert_eq!(own.check(image), Ok(()), "{image}");
        }
        for image in ["registry.example/x", "registry.example:5001/x", "ghcr.io/x"] {
            assert!(own.check(image).is_err(), "{image}");
        }
        assert_eq!(policy(&["*"], &[]).check("10.0.0.5:22/x"), Ok(()));
        assert!(policy(&[], &[]).check("busybox").is_err());
        for wrong in ["ghcr", "https://ghcr.io", "ghcr.io/a", "a:b", "*.example", "a..b"] {
            assert!(ImagePolicy::new(&[wrong], &[]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_lies_here_is_a_strangers_only_where_a_pattern_has_it() {
        let reference = |image: &str| image.parse::<Reference>().unwrap();
        assert!(!ImagePolicy::default().allows_local(&reference("busybox")));
        for (pattern, image, fits) in [
            ("busybox", "busybox", true),
            ("busybox", "docker.io/library/busybox:latest", true),
            ("busybox", "busybox:1", false),
            ("busybox:*", "busybox:1", true),
            ("busybox:*", "busybox2:1", false),
            ("busybox:*", "evil/busybox:1", false),
            ("docker.io/library/busybox:1", "busybox:1", true),
            ("lamda-demo:*", "lamda-demo:0f1e", true),
            ("10.0.0.5:5000/*", "10.0.0.5:5000/a/b:1", true),
            ("10.0.0.5:5000/*", "10.0.0.5:50001/a:1", false),
            ("*", "anything/at:all", true),
            ("a*b*c:1", "axbxc:1", true),
            ("a*b*c:1", "axbxcc:1", true),
            ("a*b*c:1", "axxc:1", false),
            ("*:1", "x:11", false),
        ] {
            assert_eq!(policy(&[], &[pattern]).allows_local(&reference(image)), fits, "{pattern}");
        }
        assert_eq!(policy(&[], &["own/app:*"]).check("own/app:1"), Ok(()));
    }

    #[test]
    fn denied_images_are_denied_however_they_are_spelled_and_others_only_if_listed() {
        let lists = |allow: &[&str], deny: &[&str]| {
            policy(&["docker.io", "ghcr.io"], &["own/*"]).with_lists(allow, deny).unwrap()
        };
        let denies = lists(&[], &["evil/*", "GHCR.io/bad/app", "busybox:1.0", "own/old:*"]);
        for image in [
            "evil/x",
            "docker.io/evil/x:2",
            "Index.Docker.io/evil/x",
            &format!("evil/x@sha256:{HEX}"),
            "ghcr.io/bad/app",
            "GHCR.IO/bad/app:7",
            &format!("ghcr.io/bad/app:7@sha256:{HEX}"),
            "busybox:1.0",
            "docker.io/library/busybox:1.0",
            &format!("busybox:1.0@sha256:{HEX}"),
            "own/old:1",
        ] {
            assert_eq!(denies.check(image), Err(NotAllowed::Denied), "{image}");
        }
        for image in ["good/x", "ghcr.io/bad/app2", "ghcr.io/evil/x", "busybox:1", "own/new:1"] {
            assert_eq!(denies.check(image), Ok(()), "{image}");
        }
        let allows = lists(&["good/*", "ghcr.io/a/b:1", "redis"], &["good/evil"]);
        for image in ["good/x", "good/x:3", "ghcr.io/a/b:1", "redis", "redis:7", "own/new:1"] {
            assert_eq!(allows.check(image), Ok(()), "{image}");
        }
        for image in ["busybox", "ghcr.io/a/b:2", "ghcr.io/good/x", "redis2"] {
            assert_eq!(allows.check(image), Err(NotAllowed::Unlisted), "{image}");
        }
        assert_eq!(allows.check("good/evil:1"), Err(NotAllowed::Denied));
        for wrong in ["", "a b", "a**"] {
            assert!(policy(&["*"], &[]).with_lists(&[wrong], &[]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_owner_may_want_digests_of_what_comes_from_registries() {
        let policy = policy(&["docker.io"], &["own:*"]).with_digests(true);
        assert_eq!(policy.check("busybox:1"), Err(NotAllowed::NoDigest));
        assert_eq!(policy.check(&format!("busybox:1@sha256:{HEX}")), Ok(()));
        assert_eq!(policy.check("own:1"), Ok(()), "what was built here has none");
    }
}
