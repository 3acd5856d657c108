//! Whether jobs could have the network `internet` on this engine, by making one ([`super::holders`]).
//!
//! Must hold: nothing of a trial is left, not even of one that was interrupted, once the next has been made.

use super::super::{ContainerId, Error, Network};
use super::Docker;
use super::holders::{keeps_own_networks, make, sweep};
use crate::ids::Address;

/// The node whose label the holders of [`Docker::try_internet`] carry: that of no node, or a running one would remove them
/// as holders that it doesn't know.
const OF_A_TRIAL: Address = Address::new([0; 20]);

/// What a trial of the network `internet` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Internet {
    /// Jobs can have it.
    Offered {
        /// Over IPv6 as well: the engine's default bridge has it.
        v6: bool,
    },
    /// Not under the runtime of jobs; holds why.
    OtherRuntime(String),
}

impl Docker {
    /// Whether jobs could have the network `internet` here: makes a holder of one, and removes it.
    pub async fn try_internet(&self) -> Result<Internet, Error> {
        match keeps_own_networks(self).await? {
            Some(Error::Engine { reason }) => return Ok(Internet::OtherRuntime(reason)),
            Some(err) => return Err(err),
            None => {}
        }
        // Those of an interrupted trial.
        sweep(self, OF_A_TRIAL).await?;
        let _alone = self.holders.making.lock().await;
        let id = make(self, OF_A_TRIAL, Network::Internet).await?;
        self.discard(&ContainerId(id)).await?;
        let bridge = self.client().await?.inspect_network("bridge", None);
        let bridge = self.call(bridge).await?;
        Ok(Internet::Offered { v6: bridge.enable_ipv6 == Some(true) })
    }
}
