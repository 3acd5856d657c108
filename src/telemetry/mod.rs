//! Prometheus: what the node tells of itself when it is asked (`METRICS_LISTEN`).
//!
//! [`Family`] is the list of what there is, [`Page`] one answer, [`serve`] the server. Who knows the values fills a
//! page at each request; nothing is counted here.
//!
//! Invariants: the vendor's crate is named here only; a value that is not known is absent, never 0; no label's value
//! comes from a job; whoever asks costs a bounded amount, however often or badly it asks.

mod family;
mod page;
mod server;

pub use family::{About, Family, Kind};
pub use page::{CONTENT_TYPE, Page};
pub use server::serve;
