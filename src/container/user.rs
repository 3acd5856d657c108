//! The user that a job in the strict sandbox runs as (`JOB_USER`). In the standard one the image names it.

use std::fmt;

/// A user and a group by their numbers; neither is root's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The user id, from 1.
    pub uid: u32,
    /// The group id, from 1.
    pub gid: u32,
}

impl User {
    /// `nobody` on most systems.
    pub const NOBODY: Self = Self { uid: 65534, gid: 65534 };
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// The largest id that container runtimes take.
const ID_MAX: u32 = i32::MAX.unsigned_abs();

/// A text that is not `UID` or `UID:GID` of an unprivileged user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not UID or UID:GID, numbers from 1 to {ID_MAX}")]
pub struct InvalidUser;

impl std::str::FromStr for User {
    type Err = InvalidUser;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        let id = |text: &str| text.parse().ok().filter(|id| (1..=ID_MAX).contains(id));
        Ok(Self { uid: id(uid).ok_or(InvalidUser)?, gid: id(gid).ok_or(InvalidUser)? })
    }
}
