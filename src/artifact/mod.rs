//! Bytes addressed by content: verified fetch, streamed publish, the embedded store.
//!
//! [`Gateways`] fetches from IPFS gateways, [`seal`] says what a file or folder will be called,
//! [`Pinata`] publishes it, and [`store`] is a small gateway with Pinata's call for machines
//! without the network. Below them: `dag` (blocks), `car` (blocks on the wire), `unixfs` and
//! `directory` (files into blocks), `assemble` (blocks into files), `local` (folders that
//! strangers wrote).
//!
//! What must hold: no byte goes in or out that was not checked against its CID. Gateways, the
//! names in their directories and the folders of jobs are hostile; whatever they say is bounded in
//! number, depth and size, and nothing appears under its final name before all of it is right.

mod assemble;
mod car;
mod carry;
mod dag;
mod directory;
mod form;
mod gateway;
mod hop;
mod http;
mod local;
mod names;
mod patience;
mod pinata;
mod staging;
pub mod store;
mod task;
mod unixfs;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::Cid;
use crate::report::BoxError;
use crate::secret::Secret;

pub use gateway::{Fetched, Gateways};
pub use http::{install_crypto, is_http_url};
pub use local::View;
pub use pinata::{Pinata, Tried};
pub use unixfs::{seal, seal_output};

/// Files and folders of one object, at most: what Pinata takes in one call.
const ENTRIES_MAX: usize = 30_000;
/// Folders in one another, at most.
const DEPTH_MAX: usize = 64;
/// Bytes of one name, at most: what file systems take.
const NAME_BYTES_MAX: usize = 255;

/// Where bytes come from and go to.
#[derive(Debug, Clone)]
pub struct Config {
    /// Base URLs of gateways, without `/ipfs`; asked in this order.
    pub gateways: Vec<String>,
    /// Goes to the first gateway alone, the operator's own, as Pinata's dedicated gateways want it.
    pub gateway_token: Option<Secret>,
    /// Base URL of the pinning service, `https://api.pinata.cloud` in production.
    pub pinata_url: String,
    /// The key for it.
    pub pinata_jwt: Secret,
    /// Calls that the service's plan allows a minute.
    pub pinata_rate_per_min: u32,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How long nothing may move on a connection; how slow a transfer may be follows from it.
    pub idle_timeout: Duration,
}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One file.
    File,
    /// A folder of files.
    Directory,
}

/// What a file or folder on this machine is called, once and for all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// CIDv1, raw leaves, 256 KiB chunks, 174 links.
    pub cid: Cid,
    /// Bytes of all files together.
    pub bytes: u64,
    /// File or folder.
    pub kind: Kind,
    /// How it was looked at: it is published in the same view.
    pub view: View,
}

/// Why bytes did not come or go. The cause is in `source()`, not in the text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody who could do it does it now: try again later.
    #[error("{what}")]
    Unavailable {
        /// Who or what is not there, in words.
        what: String,
        /// What went wrong.
        #[source]
        source: Option<BoxError>,
    },
    /// Every gateway gave bytes that contradict the CID.
    #[error("every gateway gives bytes that contradict {cid}")]
    Unverified {
        /// What was asked for.
        cid: Cid,
    },
    /// There is more of it than was allowed.
    #[error("larger than the limit of {limit_bytes} bytes")]
    TooLarge {
        /// What was allowed.
        limit_bytes: u64,
    },
    /// It holds something that can't be carried: a link, a device, a hostile name.
    #[error("`{path}` can't be carried: {reason}")]
    Unsupported {
        /// Where in the object, or the object itself. Escaped, never empty.
        path: String,
        /// Why, in words.
        reason: String,
    },
    /// There is nothing at this path.
    #[error("there is nothing at {}", .0.display())]
    Missing(PathBuf),
    /// The disk is full.
    #[error("the disk is full")]
    NoSpace,
    /// The service does not take the key.
    #[error("{service} refuses the key{}", .words.as_ref().map(|words| format!(": {words}")).unwrap_or_default())]
    Refused {
        /// Which service, redacted.
        service: String,
        /// Its words, where it was asked for them: one line, at most 300 characters.
        words: Option<String>,
    },
    /// The service takes the key, but not the upload: the plan is used up, or too small for it.
    #[error("{service} does not take the upload: {reason}")]
    Declined {
        /// Which service, redacted.
        service: String,
        /// Its words, one line, at most 300 characters.
        reason: String,
    },
    /// The service takes uploads, but not one of this size.
    #[error("{service} does not take an upload of this size: {reason}")]
    Oversized {
        /// Which service, redacted.
        service: String,
        /// Its words, one line, at most 300 characters.
        reason: String,
    },
    /// Asked too often.
    #[error("{service} was asked too often")]
    RateLimited {
        /// Which service, redacted.
        service: String,
        /// When it wants to be asked again, where it said so.
        retry_after: Option<Duration>,
    },
    /// The pinning service named other bytes than were sent.
    #[error("the pinning service answered {answered}, but the bytes are {expected}")]
    Mismatch {
        /// What the bytes are called here.
        expected: Box<Cid>,
        /// What the service said.
        answered: Box<Cid>,
    },
    /// The pinning service answered something that makes no sense, or refused for good.
    #[error("the pinning service did not take the upload: {reason}")]
    Rejected {
        /// Its words, one line, at most 300 characters.
        reason: String,
    },
    /// A setting can't be used.
    #[error("{setting} can't be used")]
    Setting {
        /// Which, redacted.
        setting: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// A file of ours could not be read or written.
    #[error("a file could not be read or written")]
    Io(#[source] std::io::Error),
}

impl Error {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::RateLimited { .. } | Self::Io(_))
    }

    /// Whether the pinning service answers, and does not take what it is given.
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
