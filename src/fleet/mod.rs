//! What nodes tell about themselves, event by event, and how others read it. Pure.
//!
//! [`event`] is the one form of an event, [`kinds`] lists all that a node can say, [`sampling`] decides which
//! events go to sinks that don't get all, [`seed_view`] shows events as the dashboards of `SynapticLlamas` and
//! SOLLOL read them.
//!
//! [`seen`] is what a watcher says of a program, signed.
//!
//! What a hub makes of it: [`beat`] is what agents of the original monitor post, [`signed`] a beat that its node's key
//! has signed, [`instances`] finds two programs with one key, [`clocks`] says whether a node is there, [`rule`] is what
//! somebody wants to know, [`alerts`] decides who is told what and when, [`notice`] is what
//! is told.
//!
//! Must hold: an event is bounded, whoever wrote the texts in it; its component and its type are each one token
//! of a NATS subject.

pub mod alerts;
pub mod anomaly;
pub mod beat;
pub mod clocks;
pub mod event;
pub mod instances;
pub mod kinds;
pub mod notice;
pub mod pair;
pub mod rule;
pub mod sampling;
pub mod seed_view;
pub mod seen;
pub mod signed;
pub mod words;

pub use event::{Event, Kind, Level, Token, TraceId};
pub use sampling::Sampling;
