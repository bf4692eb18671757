//! A simulated warehouse and carrier: they take fulfilment orders from `fulfilment.requested`, heed
//! `fulfilment.withdrawn`, and answer on `outcomes.received`, in compressed time. Nothing they report is real, and
//! every record says so.
//!
//! They talk over topics only, as a real warehouse would over a wire, and keep books of their own. What they report
//! about a fulfilment order is a pure function of it, the seed, the rates and the speed ([`plan`]); the one thing that
//! depends on when something was read is whether a withdrawal came in time, and that is in the books, on the disk,
//! before anybody is told. So one that was killed reads again what it had not finished and says the same again, under
//! the same event ids.

pub mod books;
pub mod desk;
pub mod plan;
pub mod rates;
pub mod run;

pub use plan::World;
pub use rates::Rates;
