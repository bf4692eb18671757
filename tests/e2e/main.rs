//! The few journeys that matter, with real processes on real servers (`./kept test` starts them).

mod board;
mod deployment;
mod journeys;
mod trouble;
