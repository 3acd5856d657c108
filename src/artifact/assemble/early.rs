//! Blocks of an archive that come before anything wants them.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::artifact::dag::BlockId;

/// Maximum bytes of those blocks.
pub(super) const EARLY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Maximum blocks kept that arrived before their parents.
pub(super) const EARLY_MAX: usize = 8192;

/// Blocks that nothing wants yet; the oldest are dropped when there are too many.
#[derive(Default)]
pub(super) struct Early {
    blocks: HashMap<BlockId, Bytes>,
    pub(super) order: VecDeque<BlockId>,
    pub(super) bytes: usize,
}

impl Early {
    pub(super) fn keep(&mut self, id: BlockId, block: &[u8]) {
        // A copy: a slice would keep the whole piece of the stream alive.
        if self.blocks.insert(id, Bytes::copy_from_slice(block)).is_none() {
            self.order.push_back(id);
            self.bytes += block.len();
        }
        while self.bytes > EARLY_BYTES_MAX || self.order.len() > EARLY_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            self.take(oldest);
        }
    }

    pub(super) fn take(&mut self, id: BlockId) -> Option<Bytes> {
        let block = self.blocks.remove(&id)?;
        self.bytes -= block.len();
        Some(block)
    }

    pub(super) fn holds(&self, id: BlockId) -> bool {
        self.blocks.contains_key(&id)
    }
}
