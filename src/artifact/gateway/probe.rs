//! Checks whether the gateways serve content at all.
//!
//! Invariants: a gateway passes only if it returned the exact bytes of a CID; what is read from it
//! is bounded.

use super::Gateways;
use super::failure::{nobody, verdict};
use crate::artifact::Error;
use crate::ids::Cid;

/// CID of the empty directory, which every gateway can serve.
pub(super) const PROBE: &str = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";
/// Bytes read of an answer at most; the block itself is far smaller.
const PROBE_BYTES_MAX: usize = 1024;

impl Gateways {
    /// The addresses of all gateways, redacted.
    pub fn names(&self) -> Vec<String> {
        self.all.iter().map(|gateway| crate::http::shown(&gateway.base)).collect()
    }

    /// Checks that at least one gateway serves a block that all should have, byte for byte. Returns
    /// the gateways that failed, each with its reason. Fails if all of them did.
    pub async fn check(&self) -> Result<Vec<(String, String)>, Error> {
        let cid: Cid = PROBE.parse().map_err(|_| nobody("the probe".to_owned(), None))?;
        let mut faults = Vec::new();
        for gateway in &self.all {
            if let Err(fault) = self.block(gateway, &cid, PROBE_BYTES_MAX).await {
                faults.push((crate::http::shown(&gateway.base), fault));
            }
        }
        if faults.len() == self.all.len() {
            return Err(verdict(&cid, faults));
        }
        Ok(faults.into_iter().map(|(gateway, fault)| (gateway, fault.words())).collect())
    }
}
