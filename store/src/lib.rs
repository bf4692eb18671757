//! Postgres: everything that must be remembered, and the only place that writes SQL.

pub mod pages;
pub mod seam;
