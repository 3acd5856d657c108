//! What the contract may offer beyond the deployed interface, found out by ERC-165.

use super::Error;
use super::reader::Reader;

impl Reader {
    /// Whether the contract takes receipts' roots.
    pub async fn has_extension(&self) -> Result<bool, Error> {
        Ok(false)
    }
}
