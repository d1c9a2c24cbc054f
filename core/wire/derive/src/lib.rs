//! The derive macro of towpath-wire: `#[derive(Message)]` turns a struct whose fields carry their version ranges
//! into an encoder, a decoder, a `Default` and a field table.
//!
//! On a struct, `#[wire(versions = "3-13", flexible = "9+")]` makes it a message of its own; `api = Produce,
//! response = ProduceResponse` makes it a request. A struct without these is a part of a message.
//!
//! On a field:
//! - `versions = "3+"`: the versions that have the field (all of the struct's, when left out);
//! - `nullable = "3+"`: the versions in which it may be null (the field's type is then an `Option`);
//! - `tag = 0, tagged = "10+"`: the field travels in the tagged section of those versions;
//! - `ignorable`: a value other than the default is dropped silently in versions without the field;
//! - `default = "-1"`: the default, as Kafka's schema writes it (`"null"` for none);
//! - `records`: the bytes are record batches.

use proc_macro::TokenStream;

mod attributes;
mod expand;

/// Derives the wire format of a Kafka message, or of a part of one, from its field attributes.
#[proc_macro_derive(Message, attributes(wire))]
pub fn derive_message(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    expand::expand(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}
