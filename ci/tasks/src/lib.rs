//! The project's own tasks, behind the scripts of `ci/`.

pub mod bench;
pub mod book;
pub mod cases;
pub mod differential;
pub mod kind_fixtures;
pub mod kind_load;
pub mod kubectl;
pub mod load;
pub mod output;
