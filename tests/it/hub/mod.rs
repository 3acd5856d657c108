//! The hub: the real program, asked over HTTP as agents and people ask it; its pages in a browser; whom it tells.

mod agent;
mod apps;
mod clash;
mod enroll;
mod files;
mod herald;
mod killed;
mod live;
mod outbox;
mod pages;
mod pair;
mod people;
pub(crate) mod process;
mod seed;
mod seeded;
mod siege;
mod signed;
mod tasks;
mod views;
mod watched;
