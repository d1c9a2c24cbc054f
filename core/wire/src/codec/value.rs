//! The traits behind `#[derive(Message)]` and their implementations for the primitive types.

use bytes::Bytes;
use uuid::Uuid;

use super::{DecodeError, Decoder, EncodeError, Encoder, FieldType};

/// Something that stands in a message: a primitive, an array, or a struct with `#[derive(Message)]`.
pub trait Value: Sized {
    /// What the field table says of it.
    const TYPE: FieldType;

    /// Reads it at the message's version; `flexible` says whether lengths are compact.
    ///
    /// # Errors
    /// [`DecodeError`].
    fn decode_value(d: &mut Decoder, version: i16, flexible: bool) -> Result<Self, DecodeError>;

    /// Writes it at the message's version.
    ///
    /// # Errors
    /// [`EncodeError`].
    fn encode_value(&self, e: &mut Encoder, version: i16, flexible: bool) -> Result<(), EncodeError>;

    /// Bytes that the smallest one takes at this version.
    fn min_size(version: i16, flexible: bool) -> usize;
}

/// A value that has a null.
pub trait Nullable: Value {
    /// Reads it, or null.
    ///
    /// # Errors
    /// [`DecodeError`].
    fn decode_nullable(d: &mut Decoder, version: i16, flexible: bool) -> Result<Option<Self>, DecodeError>;

    /// Writes it, or null.
    ///
    /// # Errors
    /// [`EncodeError`].
    fn encode_nullable(
        value: Option<&Self>,
        e: &mut Encoder,
        version: i16,
        flexible: bool,
    ) -> Result<(), EncodeError>;

    /// Bytes that null, or the smallest value, takes at this version.
    fn min_size_nullable(version: i16, flexible: bool) -> usize {
        Self::min_size(version, flexible)
    }
}

macro_rules! primitive {
    ($($ty:ty, $field_type:ident, $get:ident, $put:ident;)*) => {$(
        impl Value for $ty {
            const TYPE: FieldType = FieldType::$field_type;

            #[inline]
            fn decode_value(d: &mut Decoder, _: i16, _: bool) -> Result<Self, DecodeError> {
                d.$get()
            }

            #[inline]
            fn encode_value(&self, e: &mut Encoder, _: i16, _: bool) -> Result<(), EncodeError> {
                e.$put(*self);
                Ok(())
            }

            #[inline]
            fn min_size(_: i16, _: bool) -> usize {
                size_of::<Self>()
            }
        }
    )*};
}

primitive! {
    bool, Bool, get_bool, put_bool;
    i8, Int8, get_i8, put_i8;
    i16, Int16, get_i16, put_i16;
    u16, Uint16, get_u16, put_u16;
    i32, Int32, get_i32, put_i32;
    u32, Uint32, get_u32, put_u32;
    i64, Int64, get_i64, put_i64;
    f64, Float64, get_f64, put_f64;
}

impl Value for Uuid {
    const TYPE: FieldType = FieldType::Uuid;

    #[inline]
    fn decode_value(d: &mut Decoder, _: i16, _: bool) -> Result<Self, DecodeError> {
        d.get_uuid()
    }

    #[inline]
    fn encode_value(&self, e: &mut Encoder, _: i16, _: bool) -> Result<(), EncodeError> {
        e.put_uuid(self);
        Ok(())
    }

    #[inline]
    fn min_size(_: i16, _: bool) -> usize {
        16
    }
}

/// Turns a null into an error.
#[inline]
fn not_null<T>(value: Option<T>, d: &Decoder) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::UnexpectedNull { position: d.position() })
}

impl Value for String {
    const TYPE: FieldType = FieldType::String;

    fn decode_value(d: &mut Decoder, _: i16, flexible: bool) -> Result<Self, DecodeError> {
        let value = d.get_nullable_string(flexible)?;
        not_null(value, d)
    }

    fn encode_value(&self, e: &mut Encoder, _: i16, flexible: bool) -> Result<(), EncodeError> {
        e.put_nullable_string(Some(self), flexible)
    }

    #[inline]
    fn min_size(_: i16, flexible: bool) -> usize {
        if flexible { 1 } else { 2 }
    }
}

impl Nullable for String {
    fn decode_nullable(d: &mut Decoder, _: i16, flexible: bool) -> Result<Option<Self>, DecodeError> {
        d.get_nullable_string(flexible)
    }

    fn encode_nullable(
        value: Option<&Self>,
        e: &mut Encoder,
        _: i16,
        flexible: bool,
    ) -> Result<(), EncodeError> {
        e.put_nullable_string(value.map(String::as_str), flexible)
    }
}

impl Value for Bytes {
    const TYPE: FieldType = FieldType::Bytes;

    fn decode_value(d: &mut Decoder, _: i16, flexible: bool) -> Result<Self, DecodeError> {
        let value = d.get_nullable_bytes(flexible)?;
        not_null(value, d)
    }

    fn encode_value(&self, e: &mut Encoder, _: i16, flexible: bool) -> Result<(), EncodeError> {
        e.put_nullable_bytes(Some(self), flexible)
    }

    #[inline]
    fn min_size(_: i16, flexible: bool) -> usize {
        if flexible { 1 } else { 4 }
    }
}

impl Nullable for Bytes {
    fn decode_nullable(d: &mut Decoder, _: i16, flexible: bool) -> Result<Option<Self>, DecodeError> {
        d.get_nullable_bytes(flexible)
    }

    fn encode_nullable(
        value: Option<&Self>,
        e: &mut Encoder,
        _: i16,
        flexible: bool,
    ) -> Result<(), EncodeError> {
        e.put_nullable_bytes(value, flexible)
    }
}

impl<T: Value> Value for Vec<T> {
    const TYPE: FieldType = FieldType::Array(&T::TYPE);

    fn decode_value(d: &mut Decoder, version: i16, flexible: bool) -> Result<Self, DecodeError> {
        let value = d.get_nullable_array(version, flexible)?;
        not_null(value, d)
    }

    fn encode_value(&self, e: &mut Encoder, version: i16, flexible: bool) -> Result<(), EncodeError> {
        e.put_array_length(Some(self.len()), flexible)?;
        e.reserve(self.len().saturating_mul(T::min_size(version, flexible)));
        self.iter().try_for_each(|element| element.encode_value(e, version, flexible))
    }

    #[inline]
    fn min_size(_: i16, flexible: bool) -> usize {
        if flexible { 1 } else { 4 }
    }
}

impl<T: Value> Nullable for Vec<T> {
    fn decode_nullable(d: &mut Decoder, version: i16, flexible: bool) -> Result<Option<Self>, DecodeError> {
        d.get_nullable_array(version, flexible)
    }

    fn encode_nullable(
        value: Option<&Self>,
        e: &mut Encoder,
        version: i16,
        flexible: bool,
    ) -> Result<(), EncodeError> {
        match value {
            Some(elements) => elements.encode_value(e, version, flexible),
            None => e.put_array_length(None, flexible),
        }
    }
}

/// Reads a struct behind the byte that says whether it is there: −1 for null, in every version.
///
/// # Errors
/// [`DecodeError`].
pub fn decode_nullable_struct<T: Value>(
    d: &mut Decoder,
    version: i16,
    flexible: bool,
) -> Result<Option<T>, DecodeError> {
    if d.get_i8()? < 0 { Ok(None) } else { T::decode_value(d, version, flexible).map(Some) }
}

/// Writes a struct behind the byte that says whether it is there.
///
/// # Errors
/// [`EncodeError`].
pub fn encode_nullable_struct<T: Value>(
    value: Option<&T>,
    e: &mut Encoder,
    version: i16,
    flexible: bool,
) -> Result<(), EncodeError> {
    match value {
        None => {
            e.put_i8(-1);
            Ok(())
        }
        Some(value) => {
            e.put_i8(1);
            value.encode_value(e, version, flexible)
        }
    }
}
