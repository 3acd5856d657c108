//! The hub: the real program, asked over HTTP as agents and people ask it; its pages in a browser; whom it tells.

mod agent;
mod apps;
mod files;
mod killed;
mod live;
mod outbox;
mod pages;
mod people;
pub(crate) mod process;
mod seed;
mod seeded;
mod siege;
mod tasks;
mod views;
