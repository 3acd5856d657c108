//! A node's reputation as the chain keeps it: pure rules.

pub mod score;
