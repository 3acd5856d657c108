//! Content-addressed bytes: verified fetch, streamed publish, and an embedded store.
//!
//! [`Gateways`] fetches from IPFS gateways, [`seal`] computes the CID of a file or folder,
//! [`Pinata`] publishes it, and [`store`] is a small gateway that also accepts Pinata's pinning
//! call, for machines without network access. Below them: `dag` (blocks), `car` (archives of
//! blocks), `unixfs` and `directory` (files into blocks), `assemble` (blocks into files), `local`
//! (reads untrusted folders).
//!
//! Invariants: no byte enters or leaves without being checked against its CID. Gateways, the names
//! in their directories and the folders of jobs are hostile: what they send is bounded in number,
//! depth and size. Nothing appears under its final name before all of it is verified.

mod assemble;
mod car;
mod carry;
mod dag;
mod directory;
mod form;
mod gateway;
mod hop;
mod http;
mod item;
mod local;
mod names;
mod patience;
mod pinata;
mod staging;
pub mod store;
mod strangers;
mod task;
mod unixfs;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::Cid;
use crate::report::BoxError;
use crate::secret::Secret;

pub use gateway::{Fetched, Gateways};
pub use item::View;
pub use pinata::{Pinata, Tried};
pub use strangers::for_strangers;
pub use unixfs::{seal, seal_output};

/// Maximum number of files and folders in one object; Pinata accepts no more in one call.
const ENTRIES_MAX: usize = 30_000;
/// Maximum nesting depth of folders.
const DEPTH_MAX: usize = 64;
/// Maximum bytes of a path below an object's root: half of the kernel's limit.
const PATH_BYTES_MAX: usize = 2048;
/// Maximum length of one name in bytes; file systems accept no more.
const NAME_BYTES_MAX: usize = 255;

/// Settings of the gateways and of the pinning service.
#[derive(Debug, Clone)]
pub struct Config {
    /// Base URLs of gateways, without `/ipfs`, in the order in which they are asked.
    pub gateways: Vec<String>,
    /// Sent to the first gateway only, the operator's own: Pinata's dedicated gateways require it.
    pub gateway_token: Option<Secret>,
    /// Base URL of the pinning service, `https://api.pinata.cloud` in production.
    pub pinata_url: String,
    /// API key (JWT) of the pinning service.
    pub pinata_jwt: Secret,
    /// Calls per minute that the service's plan allows.
    pub pinata_rate_per_min: u32,
    /// Timeout for establishing a connection.
    pub connect_timeout: Duration,
    /// Longest silence on a connection; the time limits of slow transfers derive from it.
    pub idle_timeout: Duration,
}

/// Whether an object is a file or a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A single regular file.
    File,
    /// A folder with the files below it.
    Directory,
}

/// Content address and size of a local file or folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// CIDv1 with raw leaves, 256 KiB chunks and at most 174 links per node.
    pub cid: Cid,
    /// Total size of all files in bytes.
    pub bytes: u64,
    /// Whether it is a file or a folder.
    pub kind: Kind,
    /// View under which it was hashed; publishing reads it under the same view.
    pub view: View,
}

/// Why a fetch, seal or publish failed. The cause is in `source()`, not in the message.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No gateway or service can do it at present; a later attempt may succeed.
    #[error("{what}")]
    Unavailable {
        /// What is unavailable, for the message.
        what: String,
        /// The underlying error, if there is one.
        #[source]
        source: Option<BoxError>,
    },
    /// Every gateway returned bytes that contradict the CID.
    #[error("every gateway gives bytes that contradict {cid}")]
    Unverified {
        /// The CID that was requested.
        cid: Cid,
    },
    /// The object exceeds the size limit.
    #[error("larger than the limit of {limit_bytes} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit_bytes: u64,
    },
    /// The object contains something that can't be transferred: a link, a device, a hostile name.
    #[error("`{path}` can't be carried: {reason}")]
    Unsupported {
        /// Path within the object, or the object itself; escaped for display.
        path: String,
        /// What can't be transferred, as a phrase.
        reason: String,
    },
    /// The path does not exist.
    #[error("there is nothing at {}", .0.display())]
    Missing(PathBuf),
    /// The disk or this user's quota is full.
    #[error("the disk is full")]
    NoSpace,
    /// The service rejects the key (status 401 or 403).
    #[error("{service} refuses the key{}", .words.as_ref().map(|words| format!(": {words}")).unwrap_or_default())]
    Refused {
        /// URL of the service, redacted.
        service: String,
        /// Status and explanation of the service, if they were read: one line, with at most 300
        /// characters of explanation.
        words: Option<String>,
    },
    /// The service accepts the key but not the upload (402): the plan is used up or too small.
    #[error("{service} does not take the upload: {reason}")]
    Declined {
        /// URL of the service, redacted.
        service: String,
        /// Status and explanation on one line, with at most 300 characters of explanation.
        reason: String,
    },
    /// The service accepts uploads, but not one of this size (413).
    #[error("{service} does not take an upload of this size: {reason}")]
    Oversized {
        /// URL of the service, redacted.
        service: String,
        /// Status and explanation on one line, with at most 300 characters of explanation.
        reason: String,
    },
    /// The service's rate limit is exceeded (429).
    #[error("{service} was asked too often")]
    RateLimited {
        /// URL of the service, redacted.
        service: String,
        /// How long the service asks to wait, if it said so.
        retry_after: Option<Duration>,
    },
    /// The pinning service answered with the CID of other bytes than were sent.
    #[error("the pinning service answered {answered}, but the bytes are {expected}")]
    Mismatch {
        /// CID computed from the local bytes.
        expected: Box<Cid>,
        /// CID that the service returned.
        answered: Box<Cid>,
    },
    /// The pinning service gave an invalid answer, or refused for good.
    #[error("the pinning service did not take the upload: {reason}")]
    Rejected {
        /// Status and explanation on one line, with at most 300 characters of explanation.
        reason: String,
    },
    /// A setting has an unusable value.
    #[error("{setting} can't be used")]
    Setting {
        /// The setting or its value, redacted.
        setting: String,
        /// Why the value can't be used.
        #[source]
        source: BoxError,
    },
    /// A local file could not be read or written.
    #[error("a file could not be read or written")]
    Io(#[source] std::io::Error),
}

impl Error {
    /// Whether the same call may succeed later without anyone changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::RateLimited { .. } | Self::Io(_))
    }

    /// Whether the pinning service answers, but rejects the key or the upload.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Declined { .. } | Self::Oversized { .. })
    }
}

impl From<std::io::Error> for Error {
    fn from(err: std::io::Error) -> Self {
        match err.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::NoSpace,
            _ => Self::Io(err),
        }
    }
}
