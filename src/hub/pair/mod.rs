//! Two hubs of one account that share their alerts (`HUB_PAIR`): for each channel one of them sends, and the other one
//! takes over where that one is silent.
//!
//! Each channel has a `Desk`: its service reads and renews the lease in the bucket `HUB_OUTBOX` and takes up what the
//! other hub told; to the outbox it is the [`Partner`].
//!
//! Must hold: what is sent in this hub's turn is written into the bucket right before, over the revision that made it its
//! turn, so that a hub that was taken over can't send; a hub that can't reach the bucket sends only after
//! [`ALONE`](crate::fleet::pair::lease::ALONE), and marks each message.

mod desk;
mod memory;
mod partner;

use std::sync::Arc;

use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::bus::Bus;
use crate::clock::{SystemClock, Timestamp};
use crate::fleet::pair::HubName;
use crate::fleet::pair::wire::Who;
use crate::notify::Partner;
use crate::notify::partner::Turn;
use crate::supervise::Services;
use desk::Desk;

/// Who sends over a channel, for pages and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The channel.
    pub channel: &'static str,
    /// Whether it is this hub.
    pub turn: Turn,
    /// The name of the hub that sends; `None` while nobody knows.
    pub hub: Option<HubName>,
    /// Since when.
    pub since: Option<Timestamp>,
}

/// This hub's part of the pair. Clones share it.
#[derive(Debug, Clone)]
pub struct Pair {
    name: HubName,
    desks: Arc<[Arc<Desk>]>,
}

impl Pair {
    /// This hub, by its name, for these channels. `wire` is the connection to NATS, while there is one.
    pub fn new(
        name: HubName,
        channels: impl IntoIterator<Item = &'static str>,
        wire: &watch::Sender<Option<Bus>>,
        clock: SystemClock,
    ) -> Self {
        let who = Who { hub: name.clone(), run: fastrand::u64(..) };
        let desk = |channel| Arc::new(Desk::new(channel, who.clone(), wire.subscribe(), clock));
        Self { name, desks: channels.into_iter().map(desk).collect() }
    }

    /// This hub's name.
    pub const fn name(&self) -> &HubName {
        &self.name
    }

    /// The partner of this channel.
    pub fn partner(&self, channel: &str) -> Option<Arc<dyn Partner>> {
        let desk = self.desks.iter().find(|desk| desk.channel == channel)?;
        Some(Arc::clone(desk) as Arc<dyn Partner>)
    }

    /// Who sends over each channel.
    pub fn senders(&self) -> Vec<Sender> {
        self.desks.iter().map(|desk| desk.sender()).collect()
    }

    /// Starts the services, one a channel.
    pub fn spawn(&self, services: &mut Services, backoff: Backoff) {
        for desk in self.desks.iter() {
            services.spawn_with("pair", backoff, Arc::clone(desk), |desk| async move {
                desk.run().await;
                Ok(())
            });
        }
    }
}
