//! What the chain is told of the node, decided without a chain: which calls there are, and what a
//! transaction's next step is.

pub mod call;
pub mod fees;
pub mod merkle;
pub mod proof;
pub mod schedule;
pub mod score;
pub mod survey;
pub mod tx;

pub use call::Call;
pub use fees::Fees;
pub use proof::Proof;
