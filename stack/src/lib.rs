//! What stands round the pipeline when it is tried, tested and broken: servers, processes in the background, a simulated
//! warehouse and carrier, a proxy that makes faults, and chaos.

pub mod chaos;
pub mod processes;
pub mod proxy;
pub mod servers;
pub mod testing;
pub mod world;
