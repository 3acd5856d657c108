//! Checks whether the gateways serve content at all.
//!
//! Invariants: a gateway passes only if it returned the exact bytes of a CID; what is read from it
//! is bounded.

use crate::http::StatusCode;

use super::failure::{FetchFailure, nobody, verdict};
use super::{Gateway, Gateways, is_page};
use crate::artifact::Error;
use crate::artifact::dag::BlockId;
use crate::ids::Cid;

/// CID of the empty directory, which every gateway can serve.
pub(super) const PROBE: &str = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";
/// Bytes read of an answer at most; the block itself is far smaller.
const PROBE_BYTES_MAX: usize = 1024;

impl Gateways {
    /// Checks that at least one gateway serves a block that all should have, byte for byte. Returns
    /// the gateways that failed, each with its reason. Fails if all of them did.
    pub async fn check(&self) -> Result<Vec<(String, String)>, Error> {
        let cid: Cid = PROBE.parse().map_err(|_| nobody("the probe".to_owned(), None))?;
        let mut faults = Vec::new();
        for gateway in &self.all {
            if let Err(fault) = self.probe(gateway, &cid).await {
                faults.push((crate::http::shown(&gateway.base), fault));
            }
        }
        if faults.len() == self.all.len() {
            return Err(verdict(&cid, faults));
        }
        Ok(faults.into_iter().map(|(gateway, fault)| (gateway, fault.words())).collect())
    }

    async fn probe(&self, gateway: &Gateway, cid: &Cid) -> Result<(), FetchFailure> {
        let mut answer = self.ask(gateway, &format!("ipfs/{cid}?format=raw"), None).await?;
        if answer.status() != StatusCode::OK {
            return Err(FetchFailure::of(&answer));
        }
        let mut block = Vec::new();
        while block.len() <= PROBE_BYTES_MAX
            && let Some(piece) =
                crate::http::within(self.idle, answer.chunk()).await.map_err(|source| {
                    FetchFailure::silent(&crate::http::shown(&gateway.base), source)
                })?
        {
            block.extend_from_slice(&piece);
        }
        if BlockId::from_cid(cid).names(&block) {
            return Ok(());
        }
        Err(FetchFailure::Missing(if is_page(&answer) {
            "a web page instead of content: it is not a gateway, or requires a sign-in".to_owned()
        } else {
            "other bytes than the block that was asked for".to_owned()
        }))
    }
}
