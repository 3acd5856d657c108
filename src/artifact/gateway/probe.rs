//! Whether the gateways serve at all.
//!
//! What must hold: no gateway is vouched for that did not give the bytes of a CID; whatever it sends
//! instead is bounded.

use reqwest::StatusCode;

use super::fault::{Fault, nobody, verdict};
use super::{Gateway, Gateways, is_page};
use crate::artifact::dag::BlockId;
use crate::artifact::{Error, http};
use crate::ids::Cid;

/// The empty directory, which every gateway knows.
pub(super) const PROBE: &str = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";
/// More than it has.
const PROBE_BYTES_MAX: usize = 1024;

impl Gateways {
    /// Whether any gateway gives a block that every one has, byte for byte; which of them don't, each
    /// with why, in words.
    pub async fn check(&self) -> Result<Vec<(String, String)>, Error> {
        let cid: Cid = PROBE.parse().map_err(|_| nobody("the probe".to_owned(), None))?;
        let mut faults = Vec::new();
        for gateway in &self.all {
            if let Err(fault) = self.probe(gateway, &cid).await {
                faults.push((http::shown(&gateway.base), fault));
            }
        }
        if faults.len() == self.all.len() {
            return Err(verdict(&cid, faults));
        }
        Ok(faults.into_iter().map(|(gateway, fault)| (gateway, fault.words())).collect())
    }

    async fn probe(&self, gateway: &Gateway, cid: &Cid) -> Result<(), Fault> {
        let mut answer = self.ask(gateway, &format!("ipfs/{cid}?format=raw"), None).await?;
        if answer.status() != StatusCode::OK {
            return Err(Fault::of(&answer));
        }
        let mut block = Vec::new();
        while block.len() <= PROBE_BYTES_MAX
            && let Some(piece) = http::within(self.idle, answer.chunk())
                .await
                .map_err(|source| Fault::silent(&http::shown(&gateway.base), source))?
        {
            block.extend_from_slice(&piece);
        }
        if BlockId::from_cid(cid).names(&block) {
            return Ok(());
        }
        Err(Fault::Missing(if is_page(&answer) {
            "a web page in the place of content: it is no gateway, or wants a sign-in".to_owned()
        } else {
            "other bytes than the block that was asked for".to_owned()
        }))
    }
}
