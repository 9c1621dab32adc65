//! Differential suites: two implementations of one thing, fed with the same luck.

pub mod decision;
