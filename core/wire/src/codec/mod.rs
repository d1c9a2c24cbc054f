//! The primitives of the protocol, bounded (R10), and the traits that the derive macro implements.

mod decoder;
mod descriptor;
mod encoder;
mod error;
mod value;

pub use decoder::{Decoder, TaggedScope};
pub use descriptor::{FieldDescriptor, FieldType, StructDescriptor};
pub use encoder::{Encoder, SHARED_BYTES_MIN, Segments};
pub use error::{DecodeError, EncodeError};
pub use value::{Nullable, Value, decode_nullable_struct, encode_nullable_struct};

#[cfg(test)]
mod tests;
