//! The hub: the real program, asked over HTTP as agents and people ask it.

mod agent;
mod files;
mod process;
mod seed;
mod siege;
