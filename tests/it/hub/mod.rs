//! The hub, with what it talks to.

mod outbox;
