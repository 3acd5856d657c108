//! What the node reports to the chain: the contract's calls, their schedule and price, the receipt
//! tree, and the next step of a transaction. Pure: nothing here talks to a chain.

pub mod call;
pub mod fees;
pub mod merkle;
pub mod proof;
pub mod schedule;
pub mod score;
pub mod standing;
pub mod survey;
pub mod tx;

pub use call::Call;
pub use fees::Fees;
pub use proof::Proof;
