//! The bucket `NODES`: the running nodes, with what each one tells of itself
//! ([`crate::node::presence`] parses it).
//!
//! Must hold: a node that is gone is forgotten within a minute; a bucket that is missing or can't be
//! read costs only the knowledge of other nodes.

use async_nats::jetstream::message::PublishMessage;
use futures_util::stream::{self, StreamExt as _};

use super::claims::{is_empty, is_missing, unread};
use super::stream_kind::StreamKind;
use super::{Bus, DeliveryMode, Error};
use crate::ids::Address;
use crate::node::presence::Presence;

const READ: &str = "read who is there";
const WRITE: &str = "say that this node is there";

/// How many nodes are read: more than any network of ours has. Bounds the damage of someone who writes
/// made-up ones.
const NODES_MAX: usize = 4_096;

/// How many values are read concurrently.
const AT_ONCE_MAX: usize = 16;

impl Bus {
    /// Publishes this node's presence; does nothing in [`DeliveryMode::Core`].
    pub async fn put_presence(&self, node: Address, presence: &Presence) -> Result<(), Error> {
        self.online()?;
        if self.mode() == DeliveryMode::Core {
            return Ok(());
        }
        self.ensure_stream(StreamKind::Nodes).await?;
        let message = PublishMessage::build().payload(presence.to_json().into());
        let subject = format!("$KV.NODES.{}", node.lower_hex());
        let refused = |err| Error::Refused { what: WRITE, source: Box::new(err) };
        let sent = self.jetstream().send_publish(subject, message).await.map_err(refused)?;
        sent.await.map(drop).map_err(refused)
    }

    /// The presences of all running nodes. Values that can't be parsed are left out.
    pub async fn presences(&self) -> Result<Vec<Presence>, Error> {
        self.online()?;
        if self.mode() == DeliveryMode::Core {
            return Ok(Vec::new());
        }
        let stream = self.stream_unseen(StreamKind::Nodes).await?;
        let refused = |err| Error::Refused { what: READ, source: err };
        let subjects = stream.info_with_subjects("$KV.NODES.*").await;
        let subjects = subjects.map_err(|err| refused(Box::new(err)))?;
        let mut names = Vec::new();
        let mut subjects = std::pin::pin!(subjects.take(NODES_MAX));
        while let Some(found) = subjects.next().await {
            names.push(found.map_err(|err| refused(Box::new(err)))?.0);
        }
        let values = stream::iter(names).map(|name| {
            let stream = &stream;
            async move { stream.get_last_raw_message_by_subject(&name).await }
        });
        let values: Vec<_> = values.buffer_unordered(AT_ONCE_MAX).collect().await;
        let mut all = Vec::new();
        for value in values {
            match value {
                Ok(message) => all.extend(Presence::parse(&message.payload).ok()),
                Err(err) if is_empty(&err) || is_missing(&err) => {}
                Err(err) => return Err(unread(READ, err)),
            }
        }
        Ok(all)
    }
}
