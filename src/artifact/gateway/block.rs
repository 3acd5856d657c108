//! Single blocks (`?format=raw`): the probe's, and the root of an object, which says its size.
//!
//! Invariants: nothing is taken from a block whose bytes were not checked against its CID; what is
//! read is bounded in bytes and in time.

use crate::http::StatusCode;
use crate::ids::Cid;

use super::failure::FetchFailure;
use super::{Gateway, Gateways, is_page};
use crate::artifact::dag::{self, BLOCK_BYTES_MAX, BlockId, Codec, Content};

/// Total time for a block, in longest silences.
const SILENCES_MAX: u32 = 2;

impl Gateways {
    /// The block that `cid` names, of at most `bytes_max` bytes, verified.
    pub(super) async fn block(
        &self,
        gateway: &Gateway,
        cid: &Cid,
        bytes_max: usize,
    ) -> Result<Vec<u8>, FetchFailure> {
        let mut answer = self.ask(gateway, &format!("ipfs/{cid}?format=raw"), None).await?;
        if answer.status() != StatusCode::OK {
            return Err(FetchFailure::of(&answer));
        }
        let is_page = is_page(&answer);
        let silent = |source| FetchFailure::silent(&crate::http::shown(&gateway.base), source);
        let whole = async {
            let mut block = Vec::new();
            while block.len() <= bytes_max
                && let Some(piece) =
                    crate::http::within(self.idle, answer.chunk()).await.map_err(silent)?
            {
                block.extend_from_slice(&piece);
            }
            Ok::<_, FetchFailure>(block)
        };
        let block = tokio::time::timeout(self.idle * SILENCES_MAX, whole).await;
        let block = block.map_err(|_| silent("a block drips in".into()))??;
        if BlockId::from_cid(cid).names(&block) {
            return Ok(block);
        }
        Err(FetchFailure::Missing(if is_page {
            "a web page instead of content: it is not a gateway, or requires a sign-in".to_owned()
        } else {
            "other bytes than the block that was asked for".to_owned()
        }))
    }

    /// Whether the object's own root, verified, says that its file has more than `bytes_max` bytes.
    pub(super) async fn is_larger(&self, gateway: &Gateway, cid: &Cid, bytes_max: u64) -> bool {
        match self.block(gateway, cid, BLOCK_BYTES_MAX).await {
            Ok(block) => file_bytes(BlockId::from_cid(cid).codec, &block) > bytes_max,
            Err(fault) => {
                tracing::debug!(%cid, ?fault, "no root block shows how large {cid} is");
                false
            }
        }
    }
}

/// Size of the file that begins with this block, by its own account; 0 if it begins no file.
fn file_bytes(codec: Codec, block: &[u8]) -> u64 {
    match codec {
        Codec::Raw => block.len() as u64,
        Codec::DagPb => match dag::decode(block).map(|node| node.content) {
            Ok(Content::File { bytes, .. }) => bytes,
            _ => 0,
        },
    }
}
