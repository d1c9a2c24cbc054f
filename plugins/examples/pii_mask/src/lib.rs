//! Masks e-mail addresses, card numbers and IBANs, wherever they stand in the text fields of a record.

mod find;
mod mask;

pub use find::{Kind, Kinds, find, find_into};
pub use mask::{PiiMask, hidden, star};

towpath_sdk::export_transform!(PiiMask);
