//! Databases that must end up equal, whatever was killed on the way. The tests are in `tests/`.
#![forbid(unsafe_code)]

mod equality;
mod fire;
mod world;

pub use equality::{Table, assert_equal};
pub use fire::{Fire, deliver};
pub use world::{Load, World};
