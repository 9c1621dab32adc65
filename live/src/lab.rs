//! The lab.
pub mod machines;
pub mod name;
pub mod state;
pub mod wiring;
