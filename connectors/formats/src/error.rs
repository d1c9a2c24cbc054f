//! Why a record could not be written or read.

/// A record that its format cannot carry, or bytes that are no record. The record goes to the dead-letter topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The bytes are no JSON.
    #[error("not valid JSON at byte {at}: {what}")]
    Syntax {
        /// Where, counted from the beginning of the key or value.
        at: usize,
        /// What was wrong there.
        what: &'static str,
    },
    /// The bytes are not UTF-8.
    #[error("not valid UTF-8 at byte {at}")]
    Utf8 {
        /// Where.
        at: usize,
    },
    /// The JSON does not fit the schema.
    #[error("`{field}`: {what}")]
    Mismatch {
        /// The field, or the place in the envelope.
        field: String,
        /// What does not fit.
        what: &'static str,
    },
    /// A field that the schema does not have.
    #[error("`{0}` is not in the schema the record names")]
    UnknownField(String),
    /// The header names a schema that the schemas topic does not hold.
    #[error("the schema {0} is not in the schemas topic")]
    UnknownSchema(String),
    /// An inline schema that is no Connect schema.
    #[error("the inline schema cannot be read: {0}")]
    InlineSchema(&'static str),
    /// The format `raw` carries single values only.
    #[error("`format: raw` carries one value, and the {0} has several fields or is a change event")]
    RawNeedsOneValue(&'static str),
}

impl FormatError {
    /// The stable code, in upper snake case.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Syntax { .. } => "FORMAT_SYNTAX",
            Self::Utf8 { .. } => "FORMAT_UTF8",
            Self::Mismatch { .. } => "FORMAT_MISMATCH",
            Self::UnknownField(_) => "FORMAT_UNKNOWN_FIELD",
            Self::UnknownSchema(_) => "FORMAT_UNKNOWN_SCHEMA",
            Self::InlineSchema(_) => "FORMAT_INLINE_SCHEMA",
            Self::RawNeedsOneValue(_) => "FORMAT_RAW",
        }
    }

    /// What the user can do, where there is something.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Syntax { .. } | Self::Utf8 { .. } => "set `format: raw` for topics that do not hold JSON",
            Self::UnknownSchema(_) => {
                "the topic was copied without `_towpath_schemas`, or that topic was deleted: copy it too"
            }
            Self::RawNeedsOneValue(_) => "use `format: json`, or the transform `unwrap` and a single field",
            _ => return None,
        })
    }

    pub(crate) fn mismatch(field: impl Into<String>, what: &'static str) -> Self {
        Self::Mismatch { field: field.into(), what }
    }
}

impl From<FormatError> for towpath_api::ConnectorError {
    fn from(error: FormatError) -> Self {
        let (code, hint) = (error.code(), error.hint());
        let converted = Self::terminal(code, error.to_string());
        match hint {
            Some(hint) => converted.with_hint(hint),
            None => converted,
        }
    }
}
