//! How many more jobs may be taken in.
//!
//! What must hold: none while the node drains, or is not fit.

use super::{Board, State};
use crate::node::fitness::Unfit;

/// Results that wait to be published, a slot, and on the smallest node: more of them, and the store
/// is slower than the jobs. What is not published lies on this node's disk and is nobody else's to
/// run, so that no more is taken until some are.
const UNPUBLISHED_PER_SLOT: usize = 4;
pub(super) const UNPUBLISHED_MIN: usize = 16;

impl State {
    /// Jobs in hand that have run. What the store does not take for its size waits for its owner,
    /// and says nothing of others.
    fn unpublished(&self) -> usize {
        self.entries.values().filter(|entry| !entry.wants_slot && !entry.oversized).count()
    }

    fn unpublished_max(&self) -> usize {
        (self.terms.offer.slots * UNPUBLISHED_PER_SLOT).max(UNPUBLISHED_MIN)
    }

    /// Why no job is taken though the host is fit.
    pub(super) fn is_full(&self) -> Option<Unfit> {
        let unpublished = self.unpublished();
        (unpublished >= self.unpublished_max()).then_some(Unfit::Unpublished(unpublished))
    }
}

impl Board {
    /// How many more jobs may be taken in: the free slots, and `ahead` more to be made ready; none
    /// while the node is not fit, which it is not while too many results wait to be published.
    pub fn room(&self, ahead: usize) -> usize {
        let state = self.state();
        if state.draining || state.unfit.is_some() {
            return 0;
        }
        let (slots, unpublished) = (state.terms.offer.slots, state.unpublished());
        let wanting = state.entries.values().filter(|entry| entry.wants_slot).count();
        let room = (slots + ahead).saturating_sub(wanting);
        room.min((state.unpublished_max() + ahead).saturating_sub(unpublished))
    }

    /// Whether one more may be taken in. Several sources look at once: between
    /// [`Board::wait_for_room`] and a delivery the room may have gone to another.
    pub fn has_room(&self, ahead: usize) -> bool {
        self.room(ahead) > 0
    }

    /// Takes no more jobs in, until the node starts again.
    pub fn drain(&self) {
        self.state().draining = true;
        self.notify();
    }

    /// The node ends: no more jobs are taken in, and none that nobody has in hand is taken up.
    pub fn close(&self) {
        self.state().closed = true;
        self.drain();
    }

    /// Whether [`Board::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Waits until [`Board::drain`] is called.
    pub async fn drained(&self) {
        self.wait_for(|| self.is_draining().then_some(())).await;
    }

    /// Whether [`Board::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.state().draining
    }

    /// Waits until there is room.
    pub async fn wait_for_room(&self, ahead: usize) -> usize {
        self.wait_for(|| Some(self.room(ahead)).filter(|room| *room > 0)).await
    }
}
