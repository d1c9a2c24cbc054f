//! What the macro refuses, and what it makes of a range.

use syn::{DeriveInput, parse_quote};

use super::{expand, in_range};
use crate::attributes::Range;

fn error_of(input: &str) -> String {
    let input: DeriveInput = syn::parse_str(input).expect(input);
    expand(&input).map(|_| "accepted".to_owned()).unwrap_or_else(|error| error.to_string())
}

#[test]
fn contradictions_are_refused() {
    let same_tag =
        r#"struct A { #[wire(tag = 1, tagged = "0+")] a: i8, #[wire(tag = 1, tagged = "0+")] b: i8 }"#;
    let cases = [
        (r#"struct A { #[wire(nullable = "0+")] a: String }"#, "`nullable` and `Option` go together"),
        ("struct A { a: Option<String> }", "`nullable` and `Option` go together"),
        ("struct A { #[wire(tag = 0)] a: i8 }", "`tag` and `tagged` go together"),
        (r#"struct A { #[wire(versions = "1+", tag = 0, tagged = "2+")] a: i8 }"#, "`tag` and `tagged` go"),
        (same_tag, "two fields have the same tag"),
        (r#"struct A { #[wire(versions = "5-3")] a: i8 }"#, "an empty version range"),
        (r#"struct A { #[wire(versions = "none")] a: i8 }"#, "expected a version range"),
        (r#"struct A { #[wire(default = "x")] a: i8 }"#, "not a default of this type"),
        (r#"struct A { #[wire(tagd = "0+")] a: i8 }"#, "unknown attribute of a field"),
        (r#"#[wire(versions = "0-1")] struct A {}"#, "a message has both versions and flexible"),
        (r#"#[wire(api = A, versions = "0", flexible = "none")] struct A {}"#, "a request has both"),
        ("enum A { B }", "Message is derived for structs"),
    ];
    for (input, expected) in cases {
        let error = error_of(input);
        assert!(error.contains(expected), "{error:?}, not {expected:?}");
    }
}

#[test]
fn a_field_of_every_version_is_not_asked_for_its_version() {
    let text = |min, max| in_range(Range { min, max }).map(|tokens| tokens.to_string());
    assert_eq!(text(0, i16::MAX), None);
    assert_eq!(text(3, i16::MAX).as_deref(), Some("version >= 3i16"));
    assert_eq!(text(0, 3).as_deref(), Some("version <= 3i16"));
    assert_eq!(text(3, 3).as_deref(), Some("version == 3i16"));
    assert_eq!(text(3, 7).as_deref(), Some("(3i16 ..= 7i16) . contains (& version)"));
    // `3+` covers a struct whose own versions begin with 3.
    let input: DeriveInput = parse_quote! {
        #[wire(versions = "3-9", flexible = "9+")]
        struct A { #[wire(versions = "3+")] a: i8, #[wire(versions = "4-9")] b: i8 }
    };
    let code = expand(&input).map(|tokens| tokens.to_string()).unwrap_or_default();
    assert!(!code.contains("version >= 3i16") && code.contains("(4i16 ..= 9i16) . contains"), "{code}");
}
