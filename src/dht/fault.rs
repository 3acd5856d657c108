//! Why a node gave no answer, each as a clause that a person understands.

use std::time::Duration;

use crate::report;

/// How much of a stranger's text is kept, in characters.
const TEXT_MAX: usize = 160;

/// Why a node gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("it can't be reached: {0}")]
    Unreached(String),
    #[error("only QUIC leads to it, which this program doesn't dial")]
    NoTcp,
    #[error("it gave no {what} within {} s", within.as_secs_f32())]
    Slow { what: &'static str, within: Duration },
    #[error("it broke the connection off")]
    Closed,
    #[error("what listens there is not libp2p")]
    NotLibp2p,
    #[error("it doesn't speak {0}")]
    NotSpoken(&'static str),
    #[error("it didn't prove who it is: {0}")]
    Handshake(String),
    #[error("another node answers there: {0}")]
    Another(String),
    #[error("its answer of {bytes} bytes is over the limit of {max}")]
    TooLarge { bytes: u64, max: usize },
    #[error("its answer can't be read: {0}")]
    Garbled(&'static str),
    #[error("its relay doesn't lead on to it: status {0}")]
    Relay(u64),
    #[error("it refuses: {0}")]
    Refused(String),
}

impl Fault {
    pub(super) fn unreached(err: &std::io::Error) -> Self {
        Self::Unreached(report::one_line(&err.to_string(), TEXT_MAX))
    }

    pub(super) fn handshake(err: &libp2p_noise::Error) -> Self {
        Self::Handshake(report::one_line(&report::causes(err), TEXT_MAX))
    }

    /// `text` is the stranger's.
    pub(super) fn refused(text: &[u8]) -> Self {
        Self::Refused(report::one_line(&String::from_utf8_lossy(text), TEXT_MAX))
    }
}

impl From<std::io::Error> for Fault {
    fn from(_: std::io::Error) -> Self {
        // Whatever the cause, the connection is of no use any more.
        Self::Closed
    }
}
