//! What the hub answers over HTTP.
//!
//! [`pages`] is what the pages' part needs, and all its routes; [`fleet`], [`alerts_view`] and [`stream`] answer
//! its questions.

pub mod alerts_view;
pub mod fleet;
pub mod pages;
pub mod stream;
