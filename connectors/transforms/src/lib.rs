//! The built-in transforms: `unwrap`, `filter`, `rename`, `mask`, `route`, `cast` and `insert_field`.
//!
//! They work on plain rows and on change events alike: what they do to a field they do to it in the key, before the
//! change and after it, and schemas are rewritten along with the rows, once each. What a source did not tell
//! (absent) stays untold. A pipeline carries many tables, so a field that a schema does not have is nothing to do;
//! a record that cannot be transformed is rejected, and the rest of the batch goes on.
#![forbid(unsafe_code)]

mod cast;
mod convert;
mod decimal;
mod factories;
mod filter;
mod insert_field;
mod mask;
mod options;
mod predicate;
mod rename;
mod rewrite;
mod route;
mod temporal;
#[cfg(test)]
mod test_support;
mod text;
mod unwrap;

pub use cast::Cast;
pub use factories::factories;
pub use filter::Filter;
pub use insert_field::InsertField;
pub use mask::Mask;
pub use rename::Rename;
pub use route::Route;
pub use unwrap::Unwrap;
