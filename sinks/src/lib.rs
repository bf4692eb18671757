//! Ways out to partners: one folder each, mapping only, without I/O. There is none yet; the read model's sink is in
//! `store/`, and the engine's table of calls in `store/src/calls.rs`.
