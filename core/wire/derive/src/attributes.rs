//! Reads the `#[wire(...)]` attributes of structs and fields.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::{Attribute, Error, Ident, LitInt, LitStr, Result, Type};

/// An inclusive range of versions; `max` is `i16::MAX` where the schema says `3+`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) min: i16,
    pub(crate) max: i16,
}

impl Range {
    /// Every version.
    pub(crate) const ALL: Self = Self { min: 0, max: i16::MAX };

    /// Reads `7`, `3-13` or `9+`.
    fn parse(text: &LitStr) -> Result<Self> {
        let value = text.value();
        let number = |part: &str| {
            part.parse::<i16>()
                .map_err(|_| Error::new(text.span(), "expected a version range: \"7\", \"3-13\" or \"9+\""))
        };
        let range = if let Some(min) = value.strip_suffix('+') {
            Self { min: number(min)?, max: i16::MAX }
        } else if let Some((min, max)) = value.split_once('-') {
            Self { min: number(min)?, max: number(max)? }
        } else {
            let version = number(&value)?;
            Self { min: version, max: version }
        };
        if range.min < 0 || range.min > range.max {
            return Err(Error::new(text.span(), "an empty version range"));
        }
        Ok(range)
    }

    /// Whether every version of `other` is in this range.
    pub(crate) fn covers(self, other: Self) -> bool {
        self.min <= other.min && self.max >= other.max
    }
}

/// What makes a struct a message of its own.
pub(crate) struct Top {
    pub(crate) versions: Range,
    pub(crate) flexible_from: Option<i16>,
    /// The API and the response's type, when the message is a request.
    pub(crate) request: Option<(Ident, Ident)>,
}

impl Top {
    /// `None` for a struct that is only a part of messages.
    pub(crate) fn parse(attributes: &[Attribute]) -> Result<Option<Self>> {
        let (mut versions, mut flexible, mut api, mut response) = (None, None, None, None);
        let mut at = Span::call_site();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("wire")) {
            at = attribute.span();
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("versions") {
                    versions = Some(Range::parse(&meta.value()?.parse()?)?);
                } else if meta.path.is_ident("flexible") {
                    let text: LitStr = meta.value()?.parse()?;
                    flexible =
                        Some(if text.value() == "none" { None } else { Some(Range::parse(&text)?.min) });
                } else if meta.path.is_ident("api") {
                    api = Some(meta.value()?.parse()?);
                } else if meta.path.is_ident("response") {
                    response = Some(meta.value()?.parse()?);
                } else {
                    return Err(meta.error("expected versions, flexible, api or response"));
                }
                Ok(())
            })?;
        }
        let request = match (api, response) {
            (Some(api), Some(response)) => Some((api, response)),
            (None, None) => None,
            _ => return Err(Error::new(at, "a request has both api and response")),
        };
        match (versions, flexible) {
            (Some(versions), Some(flexible_from)) => Ok(Some(Self { versions, flexible_from, request })),
            (None, None) if request.is_none() => Ok(None),
            _ => Err(Error::new(at, "a message has both versions and flexible")),
        }
    }
}

/// One field with everything that its attributes say.
pub(crate) struct Field {
    pub(crate) ident: Ident,
    /// The field's type, or what is inside its `Option`.
    pub(crate) inner: Type,
    pub(crate) optional: bool,
    pub(crate) versions: Range,
    pub(crate) nullable: Option<Range>,
    pub(crate) tag: Option<u32>,
    pub(crate) ignorable: bool,
    pub(crate) default: Option<LitStr>,
    pub(crate) records: bool,
}

impl Field {
    /// Reads one named field of a struct whose own versions are `struct_versions`.
    pub(crate) fn parse(field: &syn::Field, struct_versions: Range) -> Result<Self> {
        let ident = field.ident.clone().ok_or_else(|| Error::new(field.span(), "expected named fields"))?;
        let (inner, optional) = match option_argument(&field.ty) {
            Some(inner) => (inner.clone(), true),
            None => (field.ty.clone(), false),
        };
        let mut parsed = Self {
            ident,
            inner,
            optional,
            versions: Range::ALL,
            nullable: None,
            tag: None,
            ignorable: false,
            default: None,
            records: false,
        };
        let mut tagged = None;
        for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("wire")) {
            parsed.parse_attribute(attribute, &mut tagged)?;
        }
        if parsed.versions.covers(struct_versions) {
            parsed.versions = Range::ALL;
        }
        parsed.check(tagged, field.span())?;
        Ok(parsed)
    }

    fn parse_attribute(&mut self, attribute: &Attribute, tagged: &mut Option<Range>) -> Result<()> {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("versions") {
                self.versions = Range::parse(&meta.value()?.parse()?)?;
            } else if meta.path.is_ident("nullable") {
                self.nullable = Some(Range::parse(&meta.value()?.parse()?)?);
            } else if meta.path.is_ident("tagged") {
                *tagged = Some(Range::parse(&meta.value()?.parse()?)?);
            } else if meta.path.is_ident("tag") {
                self.tag = Some(meta.value()?.parse::<LitInt>()?.base10_parse()?);
            } else if meta.path.is_ident("ignorable") {
                self.ignorable = true;
            } else if meta.path.is_ident("default") {
                self.default = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("records") {
                self.records = true;
            } else {
                return Err(meta.error("unknown attribute of a field"));
            }
            Ok(())
        })
    }

    /// Refuses attributes that contradict each other.
    fn check(&mut self, tagged: Option<Range>, span: Span) -> Result<()> {
        if self.optional != self.nullable.is_some() {
            return Err(Error::new(span, "`nullable` and `Option` go together"));
        }
        match (self.tag, tagged) {
            (None, None) => {}
            // Kafka allows a field to be tagged in some of its versions only; no message of 4.3 does.
            (Some(_), Some(tagged)) if self.versions == Range::ALL || self.versions == tagged => {
                self.versions = tagged;
            }
            _ => return Err(Error::new(span, "`tag` and `tagged` go together, over all of `versions`")),
        }
        Ok(())
    }

    /// The versions in which null is allowed, as far as the field exists in them; `ALL` when in each of them.
    pub(crate) fn nullable_always(&self) -> bool {
        self.nullable.is_some_and(|nullable| nullable.covers(self.versions))
    }

    /// Whether the default is null.
    pub(crate) fn default_is_null(&self) -> bool {
        self.optional && (self.records || self.default.as_ref().is_some_and(|text| text.value() == "null"))
    }
}

/// The `T` of `Option<T>`.
fn option_argument(ty: &Type) -> Option<&Type> {
    generic_argument(ty, "Option")
}

/// The `T` of `Name<T>`.
pub(crate) fn generic_argument<'a>(ty: &'a Type, name: &str) -> Option<&'a Type> {
    let Type::Path(path) = ty else { return None };
    let segment = path.path.segments.last()?;
    if segment.ident != name {
        return None;
    }
    match &segment.arguments {
        syn::PathArguments::AngleBracketed(arguments) => match arguments.args.first()? {
            syn::GenericArgument::Type(inner) => Some(inner),
            _ => None,
        },
        _ => None,
    }
}
