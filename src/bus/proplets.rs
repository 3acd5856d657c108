//! What nodes tell live of themselves and of their jobs, on the subjects of the third original system.
//!
//! Must hold: lossy by design, as those who send it say; nothing waits for it.

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::StreamExt as _;

use super::{Bus, Error, subjects};
use crate::usage::heard::Kind;

/// The messages of all nodes from now on.
#[derive(Debug)]
pub struct Proplets(Subscriber);

impl Bus {
    /// What all nodes tell from now on, whatever their domain and channel.
    pub async fn proplet_feed(&self) -> Result<Proplets, Error> {
        self.online()?;
        let live = self.subscribe(subjects::OF_PROPLETS.to_owned()).await?;
        self.flush().await?;
        Ok(Proplets(live))
    }
}

impl Proplets {
    /// The next message. Cancel-safe.
    pub async fn next(&mut self) -> Result<(Kind, Bytes), Error> {
        loop {
            let message = self.0.next().await.ok_or(Error::Closed)?;
            if let Some(kind) = subjects::parse_of_proplet(&message.subject) {
                return Ok((kind, message.payload));
            }
        }
    }
}
