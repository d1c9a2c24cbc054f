//! Writes the implementations out.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Error, Fields, Ident, Result, Type};

use crate::attributes::{Field, Range, Top, generic_argument};

/// Everything that `#[derive(Message)]` writes for one struct.
pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(input, "Message is derived for structs"));
    };
    let top = Top::parse(&input.attrs)?;
    let versions = top.as_ref().map_or(Range::ALL, |top| top.versions);
    let fields = match &data.fields {
        Fields::Named(named) => {
            named.named.iter().map(|field| Field::parse(field, versions)).collect::<Result<Vec<_>>>()?
        }
        Fields::Unit => Vec::new(),
        Fields::Unnamed(_) => return Err(Error::new_spanned(input, "expected named fields")),
    };
    let name = &input.ident;
    let mut tagged: Vec<&Field> = fields.iter().filter(|field| field.tag.is_some()).collect();
    tagged.sort_by_key(|field| field.tag);
    if tagged.windows(2).any(|pair| pair[0].tag == pair[1].tag) {
        return Err(Error::new_spanned(input, "two fields have the same tag"));
    }
    let default = default_impl(name, &fields)?;
    let decode = decode_body(&fields, &tagged)?;
    let encode = encode_body(name, &fields, &tagged)?;
    let min_size = min_size_body(&fields);
    let descriptor = descriptor(name, &fields);
    let nullable = nullable_impl(name);
    let message = top.as_ref().map(|top| message_impl(name, top));
    Ok(quote! {
        #default

        impl ::towpath_wire::codec::Value for #name {
            const TYPE: ::towpath_wire::codec::FieldType =
                ::towpath_wire::codec::FieldType::Struct(&Self::DESCRIPTOR);

            fn decode_value(
                d: &mut ::towpath_wire::codec::Decoder,
                version: i16,
                flexible: bool,
            ) -> ::core::result::Result<Self, ::towpath_wire::codec::DecodeError> {
                #decode
            }

            fn encode_value(
                &self,
                e: &mut ::towpath_wire::codec::Encoder,
                version: i16,
                flexible: bool,
            ) -> ::core::result::Result<(), ::towpath_wire::codec::EncodeError> {
                #encode
            }

            fn min_size(version: i16, flexible: bool) -> usize {
                #min_size
            }
        }

        #nullable
        #descriptor
        #message
    })
}

/// A struct may be null wherever a message has it: the byte in front of it says.
fn nullable_impl(name: &Ident) -> TokenStream {
    quote! {
        impl ::towpath_wire::codec::Nullable for #name {
            fn decode_nullable(
                d: &mut ::towpath_wire::codec::Decoder,
                version: i16,
                flexible: bool,
            ) -> ::core::result::Result<::core::option::Option<Self>, ::towpath_wire::codec::DecodeError> {
                ::towpath_wire::codec::decode_nullable_struct(d, version, flexible)
            }

            fn encode_nullable(
                value: ::core::option::Option<&Self>,
                e: &mut ::towpath_wire::codec::Encoder,
                version: i16,
                flexible: bool,
            ) -> ::core::result::Result<(), ::towpath_wire::codec::EncodeError> {
                ::towpath_wire::codec::encode_nullable_struct(value, e, version, flexible)
            }

            fn min_size_nullable(_version: i16, _flexible: bool) -> usize {
                1
            }
        }
    }
}

/// `impl Default` with the defaults of the schema.
fn default_impl(name: &Ident, fields: &[Field]) -> Result<TokenStream> {
    let idents = fields.iter().map(|field| &field.ident);
    let defaults = fields.iter().map(default_value).collect::<Result<Vec<_>>>()?;
    Ok(quote! {
        impl ::core::default::Default for #name {
            fn default() -> Self {
                Self { #(#idents: #defaults),* }
            }
        }
    })
}

/// The default of one field as an expression.
fn default_value(field: &Field) -> Result<TokenStream> {
    if field.default_is_null() {
        return Ok(quote!(::core::option::Option::None));
    }
    let inner = match &field.default {
        None => {
            let ty = &field.inner;
            quote!(<#ty as ::core::default::Default>::default())
        }
        Some(text) => literal(&field.inner, text)?,
    };
    Ok(if field.optional { quote!(::core::option::Option::Some(#inner)) } else { inner })
}

/// The schema's text of a default as an expression of the field's type.
fn literal(ty: &Type, text: &syn::LitStr) -> Result<TokenStream> {
    let value = text.value();
    let invalid = || Error::new(text.span(), "not a default of this type");
    let is = |name: &str| matches!(ty, Type::Path(path) if path.path.is_ident(name));
    if is("String") {
        return Ok(quote!(::std::string::String::from(#text)));
    }
    if is("bool") {
        let value: bool = value.parse().map_err(|_| invalid())?;
        return Ok(quote!(#value));
    }
    if is("f64") {
        let value: f64 = value.parse().map_err(|_| invalid())?;
        return Ok(quote!(#value));
    }
    if ["i8", "i16", "i32", "i64", "u16", "u32"].into_iter().any(is) {
        let number = match value.strip_prefix("0x") {
            Some(digits) => i64::from_str_radix(digits, 16),
            None => value.parse::<i64>(),
        }
        .map_err(|_| invalid())?;
        let number = proc_macro2::Literal::i64_unsuffixed(number);
        return Ok(quote!(#number));
    }
    Err(invalid())
}

/// The condition that `version` is in `range`; `None` when it always is.
fn in_range(range: Range) -> Option<TokenStream> {
    let (min, max) = (range.min, range.max);
    match (min > 0, max < i16::MAX) {
        (false, false) => None,
        (true, false) => Some(quote!(version >= #min)),
        (false, true) => Some(quote!(version <= #max)),
        (true, true) if min == max => Some(quote!(version == #min)),
        (true, true) => Some(quote!((#min..=#max).contains(&version))),
    }
}

/// Reads one value of the field.
fn decode_value(field: &Field) -> TokenStream {
    let inner = &field.inner;
    let plain = quote!(<#inner as ::towpath_wire::codec::Value>::decode_value(d, version, flexible)?);
    let Some(nullable) = field.nullable else { return plain };
    let null = quote!(<#inner as ::towpath_wire::codec::Nullable>::decode_nullable(d, version, flexible)?);
    match in_range(nullable).filter(|_| !field.nullable_always()) {
        None => null,
        Some(condition) => quote!(if #condition { #null } else { ::core::option::Option::Some(#plain) }),
    }
}

/// The name of the local that holds a field while it is read: a field may be called `version` or `d`.
fn local(field: &Field) -> Ident {
    format_ident!("field_{}", field.ident)
}

fn decode_body(fields: &[Field], tagged: &[&Field]) -> Result<TokenStream> {
    let mut untagged = Vec::new();
    for field in fields.iter().filter(|field| field.tag.is_none()) {
        let (ident, value) = (local(field), decode_value(field));
        untagged.push(match in_range(field.versions) {
            None => quote!(let #ident = #value;),
            Some(condition) => {
                let default = default_value(field)?;
                quote!(let #ident = if #condition { #value } else { #default };)
            }
        });
    }
    let mut locals = Vec::new();
    let mut arms = Vec::new();
    for field in tagged {
        let (ident, tag, value, default) =
            (local(field), field.tag, decode_value(field), default_value(field)?);
        locals.push(quote!(let mut #ident = #default;));
        let guard = in_range(field.versions).map(|condition| quote!(if #condition));
        arms.push(quote!(#tag #guard => #ident = #value,));
    }
    let section = if arms.is_empty() {
        quote!(if flexible {
            d.skip_tagged_fields()?;
        })
    } else {
        quote! {
            if flexible {
                for _ in 0..d.get_uvarint()? {
                    let (tag, outer) = d.begin_tagged_field()?;
                    match tag {
                        #(#arms)*
                        _ => d.skip_tagged_field(),
                    }
                    d.end_tagged_field(outer)?;
                }
            }
        }
    };
    let idents = fields.iter().map(|field| &field.ident);
    let values = fields.iter().map(local);
    Ok(quote! {
        let _ = version;
        #(#untagged)*
        #(#locals)*
        #section
        ::core::result::Result::Ok(Self { #(#idents: #values),* })
    })
}

/// Writes one value of the field.
fn encode_value(name: &Ident, field: &Field) -> TokenStream {
    let (ident, inner) = (&field.ident, &field.inner);
    let Some(nullable) = field.nullable else {
        return quote!(::towpath_wire::codec::Value::encode_value(&self.#ident, e, version, flexible)?;);
    };
    let null = quote! {
        <#inner as ::towpath_wire::codec::Nullable>::encode_nullable(
            self.#ident.as_ref(), e, version, flexible)?;
    };
    let Some(condition) = in_range(nullable).filter(|_| !field.nullable_always()) else { return null };
    let (message, text) = (name.to_string(), wire_name(ident));
    quote! {
        if #condition {
            #null
        } else if let ::core::option::Option::Some(value) = &self.#ident {
            ::towpath_wire::codec::Value::encode_value(value, e, version, flexible)?;
        } else {
            return ::core::result::Result::Err(::towpath_wire::codec::EncodeError::NullNotAllowed {
                message: #message, field: #text, version });
        }
    }
}

/// Whether the field holds something other than its default.
fn is_set(field: &Field) -> Result<TokenStream> {
    let ident = &field.ident;
    if field.default_is_null() {
        return Ok(quote!(self.#ident.is_some()));
    }
    let growable = ["String", "Bytes"]
        .into_iter()
        .any(|name| matches!(&field.inner, Type::Path(path) if path.path.is_ident(name)))
        || generic_argument(&field.inner, "Vec").is_some();
    if !field.optional && growable && field.default.as_ref().is_none_or(|text| text.value().is_empty()) {
        return Ok(quote!(!self.#ident.is_empty()));
    }
    let default = default_value(field)?;
    Ok(quote!(self.#ident != #default))
}

/// Refuses a value that the version cannot carry, unless the field may be dropped.
fn refuse_if_set(name: &Ident, field: &Field) -> Result<Option<TokenStream>> {
    if field.ignorable {
        return Ok(None);
    }
    let (set, message, text) = (is_set(field)?, name.to_string(), wire_name(&field.ident));
    Ok(Some(quote! {
        if #set {
            return ::core::result::Result::Err(::towpath_wire::codec::EncodeError::FieldNotInVersion {
                message: #message, field: #text, version });
        }
    }))
}

fn encode_body(name: &Ident, fields: &[Field], tagged: &[&Field]) -> Result<TokenStream> {
    let mut body = Vec::new();
    for field in fields {
        let value = match field.tag {
            None => encode_value(name, field),
            Some(_) => TokenStream::new(),
        };
        body.push(match (in_range(field.versions), refuse_if_set(name, field)?) {
            (None, _) => value,
            (Some(condition), None) if field.tag.is_none() => quote!(if #condition { #value }),
            (Some(_), None) => TokenStream::new(),
            (Some(condition), Some(refuse)) => quote!(if #condition { #value } else { #refuse }),
        });
    }
    let mut flags = Vec::new();
    let mut writes = Vec::new();
    let mut names = Vec::new();
    for field in tagged {
        let flag = format_ident!("{}_is_set", field.ident);
        let (set, tag, value) = (is_set(field)?, field.tag, encode_value(name, field));
        let condition = in_range(field.versions).map(|condition| quote!(#condition &&));
        flags.push(quote!(let #flag = #condition #set;));
        writes.push(quote! {
            if #flag {
                e.put_tagged_field(#tag, |e| { #value ::core::result::Result::Ok(()) })?;
            }
        });
        names.push(flag);
    }
    Ok(quote! {
        let _ = version;
        #(#body)*
        if flexible {
            #(#flags)*
            e.put_uvarint(0 #(+ u32::from(#names))*);
            #(#writes)*
        }
        ::core::result::Result::Ok(())
    })
}

fn min_size_body(fields: &[Field]) -> TokenStream {
    let sizes = fields.iter().filter(|field| field.tag.is_none()).map(|field| {
        let inner = &field.inner;
        let size = if field.nullable.is_some() {
            quote!(<#inner as ::towpath_wire::codec::Nullable>::min_size_nullable(version, flexible))
        } else {
            quote!(<#inner as ::towpath_wire::codec::Value>::min_size(version, flexible))
        };
        match in_range(field.versions) {
            None => quote!(#size),
            Some(condition) => quote!(if #condition { #size } else { 0 }),
        }
    });
    quote! {
        let _ = version;
        usize::from(flexible) #(+ (#sizes))*
    }
}

/// The field's name without the underscore that keeps it from being a keyword.
fn wire_name(ident: &Ident) -> String {
    ident.to_string().trim_end_matches('_').to_owned()
}

fn range_tokens(range: Range) -> TokenStream {
    let (min, max) = (range.min, range.max);
    quote!(::towpath_wire::VersionRange::new(#min, #max))
}

fn optional_tokens(value: Option<TokenStream>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}

fn descriptor(name: &Ident, fields: &[Field]) -> TokenStream {
    let text = name.to_string();
    let fields = fields.iter().map(|field| {
        let (name, inner, ignorable) = (wire_name(&field.ident), &field.inner, field.ignorable);
        let field_type = if field.records {
            quote!(::towpath_wire::codec::FieldType::Records)
        } else {
            quote!(<#inner as ::towpath_wire::codec::Value>::TYPE)
        };
        let versions = range_tokens(field.versions);
        let nullable = optional_tokens(field.nullable.map(range_tokens));
        let tag = optional_tokens(field.tag.map(|tag| quote!(#tag)));
        let default = optional_tokens(field.default.as_ref().map(|text| quote!(#text)));
        quote! {
            ::towpath_wire::codec::FieldDescriptor {
                name: #name,
                field_type: #field_type,
                versions: #versions,
                nullable: #nullable,
                tag: #tag,
                ignorable: #ignorable,
                default: #default,
            }
        }
    });
    quote! {
        impl #name {
            const DESCRIPTOR: ::towpath_wire::codec::StructDescriptor =
                ::towpath_wire::codec::StructDescriptor { name: #text, fields: &[#(#fields),*] };

            /// The field table: names, types, version ranges, tags and defaults.
            #[must_use]
            pub fn describe() -> &'static ::towpath_wire::codec::StructDescriptor {
                const { &Self::DESCRIPTOR }
            }
        }
    }
}

fn message_impl(name: &Ident, top: &Top) -> TokenStream {
    let text = name.to_string();
    let versions = range_tokens(top.versions);
    let flexible_from = optional_tokens(top.flexible_from.map(|version| quote!(#version)));
    let request = top.request.as_ref().map(|(api, response)| {
        quote! {
            impl ::towpath_wire::Request for #name {
                const KEY: ::towpath_wire::ApiKey = ::towpath_wire::ApiKey::#api;
                type Response = #response;
            }
        }
    });
    quote! {
        impl ::towpath_wire::Message for #name {
            const NAME: &'static str = #text;
            const VERSIONS: ::towpath_wire::VersionRange = #versions;
            const FLEXIBLE_FROM: ::core::option::Option<i16> = #flexible_from;
        }
        #request
    }
}

#[cfg(test)]
mod tests;
