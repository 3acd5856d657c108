//! Networks made ahead of the jobs that will need them: how many, and of which kinds.

use std::sync::Arc;

use super::settings::Settings;
use crate::container::{ContainerRuntime, Network};
use crate::ids::Address;
use crate::node::admission::Reach;
use crate::supervise::Failure;

/// Most that are kept ready of a kind unless the owner asks for more: each is a container, and costs the engine
/// some 14 MiB.
const SPARE_MAX: usize = 4;

/// What is kept ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    networks: &'static [Network],
    /// Of each of them.
    spare: usize,
}

impl Wanted {
    /// For a node with these settings and so many slots.
    pub(super) fn of(settings: &Settings, slots: usize) -> Self {
        Self::new(settings.network, settings.warm_networks, slots)
    }

    fn new(allowed: Reach, asked: Option<usize>, slots: usize) -> Self {
        let networks = if allowed >= Reach::Internet {
            &[Network::None, Network::Internet][..]
        } else {
            &[Network::None]
        };
        Self { networks, spare: asked.unwrap_or(slots.min(SPARE_MAX)) }
    }

    /// Keeps them as long as the node runs. A service.
    pub(super) async fn keep<R: ContainerRuntime>(
        self,
        runtime: Arc<R>,
        node: Address,
    ) -> Result<(), Failure> {
        runtime.keep_networks(node, self.networks, self.spare).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_kept_than_jobs_can_use_and_the_owner_decides() {
        for (allowed, asked, slots, kinds, spare) in [
            (Reach::Nothing, None, 1, 1, 1),
            (Reach::Nothing, None, 64, 1, 4),
            (Reach::Internet, Some(20), 1, 2, 20),
            (Reach::Bridge, Some(0), 8, 2, 0),
        ] {
            let wanted = Wanted::new(allowed, asked, slots);
            assert_eq!((wanted.networks.len(), wanted.spare), (kinds, spare), "{allowed:?}");
        }
    }
}
