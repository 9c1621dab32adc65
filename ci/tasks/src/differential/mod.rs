//! Two of the same, held against each other: what must agree, and the few places where it does not.

pub mod decision;
pub mod envoy;
pub mod known;
pub mod lab;
mod same;

pub use same::{Difference, differences};
