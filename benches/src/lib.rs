//! Baselines: the least code that could do the same job, measured beside ours in the same run.
//!
//! Nothing here uses `runtime` or `store`: a baseline that shared their code would share their faults.

pub mod copy_rows;
pub mod cpu;
pub mod plain_loop;
pub mod report;
pub mod topics;
