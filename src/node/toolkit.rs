//! Whether the version of NVIDIA's container toolkit is one from which programs in containers are known to get
//! out to the host.
//!
//! Pure. Invariant: a version that is not known is neither safe nor unsafe
//! (docs/adr/0034-unsafe-toolkits.md).

use std::fmt;

/// The ways out of a container that the node knows of, each with the first version without it. All are of the
/// toolkit, whose programs and library (`libnvidia-container`) have one version; none is of the driver.
pub const ESCAPES: [(&str, Version); 3] = [
    ("CVE-2024-0132", Version::new(1, 16, 2)),
    ("CVE-2025-23359", Version::new(1, 17, 4)),
    ("CVE-2025-23266", Version::new(1, 17, 8)),
];

/// Longest number of a version, in digits.
const DIGITS_MAX: usize = 6;

/// A version of the toolkit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    numbers: [u32; 3],
    /// Not a candidate for the release; such a one comes before it.
    is_release: bool,
}

impl Version {
    /// A released version.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { numbers: [major, minor, patch], is_release: true }
    }

    /// The version in the first line that one of the toolkit's programs prints for `--version`:
    /// `NVIDIA Container Toolkit CLI version 1.17.8`, `cli-version: 1.17.8`, or that of the library in
    /// `lib-version: 1.17.7` if it is older. `None` if there is none.
    pub fn told(answer: &str) -> Option<Self> {
        let line = answer.lines().find(|line| !line.trim().is_empty())?;
        let own = line.split_whitespace().find_map(Self::parse)?;
        // The library that nvidia-container-cli has loaded can be of another version.
        let library = answer.lines().find_map(|line| line.trim().strip_prefix("lib-version:"));
        Some(library.and_then(|text| Self::parse(text.trim())).map_or(own, |lib| lib.min(own)))
    }

    /// `1.17.8`, with `v` before it and `-rc.1`, `~rc.1` or a package's revision after it.
    fn parse(word: &str) -> Option<Self> {
        let word = word.strip_prefix('v').unwrap_or(word);
        let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
        let (numbers, rest) = word.split_at(end);
        let mut parts = numbers.split('.');
        let mut next = || {
            let part = parts.next().filter(|part| (1..=DIGITS_MAX).contains(&part.len()))?;
            part.parse::<u32>().ok()
        };
        let numbers = [next()?, next()?, next()?];
        let is_whole = parts.next().is_none();
        let is_known = rest.is_empty() || rest.starts_with(['-', '~', '+', ',']);
        let is_release = !rest.starts_with("-rc") && !rest.starts_with("~rc");
        (is_whole && is_known).then_some(Self { numbers, is_release })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        let candidate = if self.is_release { "" } else { "-rc" };
        write!(f, "{major}.{minor}.{patch}{candidate}")
    }
}

/// What is known of the toolkit that hands this host's cards to containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing of it is used.
    Unused,
    /// None of [`ESCAPES`] is in this version.
    Safe(Version),
    /// It has some of [`ESCAPES`].
    Unsafe(Escapes),
    /// Its version is not known; holds why, as a clause.
    Unknown(String),
}

/// A version with known ways out of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Escapes {
    /// The version.
    pub version: Version,
    /// The ways out that it has: names of [`ESCAPES`].
    pub known: Vec<&'static str>,
    /// The first version without any of them.
    pub fixed_in: Version,
}

impl fmt::Display for Escapes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, known, fixed_in } = self;
        let known = known.join(", ");
        write!(
            f,
            "NVIDIA's container toolkit {version} lets programs out of their containers ({known}); {fixed_in} does not"
        )
    }
}

/// Judges what the toolkit's programs answered: each with its version, or with why it did not tell one. The
/// oldest version counts: what hands a card over is made of all of them.
pub fn judge(told: &[(&str, Result<Version, String>)]) -> Verdict {
    let versions = told.iter().filter_map(|(_, answer)| answer.as_ref().ok());
    let Some(version) = versions.min().copied() else {
        let reasons = told.iter().filter_map(|(name, answer)| {
            let reason = answer.as_ref().err()?;
            Some(format!("{name}: {reason}"))
        });
        let reasons = reasons.collect::<Vec<_>>().join("; ");
        let nothing = "none of its programs is on this host".to_owned();
        return Verdict::Unknown(if reasons.is_empty() { nothing } else { reasons });
    };
    let open: Vec<_> = ESCAPES.into_iter().filter(|(_, fixed_in)| version < *fixed_in).collect();
    match open.iter().map(|(_, fixed_in)| *fixed_in).max() {
        None => Verdict::Safe(version),
        Some(fixed_in) => {
            let known = open.into_iter().map(|(name, _)| name).collect();
            Verdict::Unsafe(Escapes { version, known, fixed_in })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_the_toolkits_programs_print_it() {
        for (answer, version) in [
            ("NVIDIA Container Toolkit CLI version 1.14.6\ncommit: 5605d19\n", Some((1, 14, 6))),
            (
                "NVIDIA Container Runtime version 1.17.8\ncommit: f202b80\nspec: 1.2.1\n\nrunc version 1.1.12\n",
                Some((1, 17, 8)),
            ),
            ("cli-version: 1.16.1\nlib-version: 1.16.1\nbuild date: 2024\n", Some((1, 16, 1))),
            ("\nversion: v1.18.0-1\n", Some((1, 18, 0))),
            ("runc version\n", None),
            ("NVIDIA Container Toolkit CLI version unknown\n", None),
            ("version 1.17\n1.17.8\n", None),
            ("version 1.17.8.9", None),
            ("version 1.17.9999999999", None),
            ("version 1.17.8evil", None),
            ("", None),
        ] {
            let expected = version.map(|(major, minor, patch)| Version::new(major, minor, patch));
            assert_eq!(Version::told(answer), expected, "{answer}");
        }
        let candidate = Version::told("version 1.17.8-rc.1").unwrap();
        assert!(candidate < Version::new(1, 17, 8) && candidate > Version::new(1, 17, 7));
    }

    /// The names of the ways out that a toolkit of these versions has.
    fn open(versions: &[(u32, u32, u32)]) -> String {
        let told: Vec<_> =
            versions.iter().map(|&(a, b, c)| ("x", Ok(Version::new(a, b, c)))).collect();
        match judge(&told) {
            Verdict::Safe(_) => String::new(),
            Verdict::Unsafe(escapes) => escapes.known.join(" "),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_escape_ends_with_the_version_that_mends_it_and_the_oldest_part_counts() {
        let all = "CVE-2024-0132 CVE-2025-23359 CVE-2025-23266";
        for (versions, known) in [
            (&[(1, 16, 1)][..], all),
            (&[(1, 16, 2)], "CVE-2025-23359 CVE-2025-23266"),
            (&[(1, 17, 3)], "CVE-2025-23359 CVE-2025-23266"),
            (&[(1, 17, 4)], "CVE-2025-23266"),
            (&[(1, 17, 7)], "CVE-2025-23266"),
            (&[(1, 17, 8)], ""),
            (&[(1, 18, 0)], ""),
            (&[(2, 0, 0)], ""),
            (&[(1, 17, 8), (1, 16, 1)], all),
        ] {
            assert_eq!(open(versions), known, "{versions:?}");
        }
    }

    #[test]
    fn a_version_that_nobody_tells_is_not_known_and_why_is_said() {
        let told = [("nvidia-ctk", Err("no answer in 5 s".to_owned()))];
        assert_eq!(judge(&told), Verdict::Unknown("nvidia-ctk: no answer in 5 s".to_owned()));
        assert!(
            matches!(judge(&[]), Verdict::Unknown(why) if why.contains("none of its programs"))
        );
    }
}
