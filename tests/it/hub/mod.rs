//! The hub.

mod pages;
mod seeded;
