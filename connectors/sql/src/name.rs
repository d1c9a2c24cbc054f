//! Table names as their database writes them, and globs over them.
//!
//! `public.orders`, `public."Odd Näme.with ""quotes"""`, `shop*.order_?`: parts are separated by dots outside of
//! quotes; unquoted parts are folded as the database folds them, and `*` (any characters) and `?` (any one) in them
//! make a glob. Inside of quotes everything stands for itself.

use std::fmt;

use super::quote::{Dialect, push_ident};

/// Why a text is no table name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing between two dots, or nothing at all.
    #[error("a part of the name is empty")]
    EmptyPart,
    /// A quote was opened and not closed.
    #[error("a double quote is not closed")]
    OpenQuote,
    /// Something else than a dot follows a closing quote.
    #[error("a quoted part is followed by {0:?}; write a dot, or double the quote to mean it literally")]
    AfterQuote(char),
    /// A character that an unquoted name cannot hold.
    #[error("the character {0:?} needs double quotes around its part of the name")]
    NeedsQuotes(char),
    /// More parts than schema and table.
    #[error("a table name has at most two parts, schema and table; quote a part that holds a dot")]
    TooManyParts,
    /// A glob where one table must be named.
    #[error("exactly one table must be named here, not a glob")]
    Glob,
    /// A NUL character.
    #[error("a name cannot hold a NUL character")]
    Nul,
}

/// A table's name, unquoted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// The schema, if one is named.
    pub schema: Option<String>,
    /// The table.
    pub table: String,
}

impl TableName {
    /// A name of these unquoted parts.
    #[must_use]
    pub fn new(schema: impl Into<String>, table: impl Into<String>) -> Self {
        Self { schema: Some(schema.into()), table: table.into() }
    }

    /// Reads a name in `dialect`'s quoting.
    ///
    /// # Errors
    /// [`NameError`]; a glob is one.
    pub fn parse(text: &str, dialect: Dialect) -> Result<Self, NameError> {
        TablePattern::parse(text, dialect)?.into_name().ok_or(NameError::Glob)
    }

    /// The name with every part in quotes, for SQL.
    #[must_use]
    pub fn quoted(&self) -> String {
        let mut out = String::new();
        if let Some(schema) = &self.schema {
            push_ident(&mut out, schema);
            out.push('.');
        }
        push_ident(&mut out, &self.table);
        out
    }
}

/// The name as PostgreSQL writes it, quoted only where it must be: what [`TableName::parse`] reads back.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write_part(f, schema)?;
            f.write_str(".")?;
        }
        write_part(f, &self.table)
    }
}

fn write_part(f: &mut fmt::Formatter<'_>, part: &str) -> fmt::Result {
    let plain = part.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && part.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_');
    if plain {
        return f.write_str(part);
    }
    let mut quoted = String::new();
    push_ident(&mut quoted, part);
    f.write_str(&quoted)
}

/// One part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Part {
    Exact(String),
    Glob(String),
}

impl Part {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Glob(glob) => glob_matches(glob, name),
        }
    }
}

/// A table's name or a glob over names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TablePattern {
    schema: Option<Part>,
    table: Part,
    text: String,
}

impl TablePattern {
    /// Reads a name or glob in `dialect`'s quoting.
    ///
    /// # Errors
    /// [`NameError`] says what is wrong.
    pub fn parse(text: &str, dialect: Dialect) -> Result<Self, NameError> {
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            let (part, after) = parse_part(rest, dialect)?;
            parts.push(part);
            match after.strip_prefix('.') {
                Some(after) => rest = after,
                None => break,
            }
        }
        let mut parts = parts.into_iter();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(table), None, _) => Ok(Self { schema: None, table, text: text.to_owned() }),
            (Some(schema), Some(table), None) => {
                Ok(Self { schema: Some(schema), table, text: text.to_owned() })
            }
            _ => Err(NameError::TooManyParts),
        }
    }

    /// Whether it can match more than one table of a schema, or tables of more than one schema.
    #[must_use]
    pub const fn is_glob(&self) -> bool {
        matches!(self.table, Part::Glob(_)) || matches!(self.schema, Some(Part::Glob(_)))
    }

    /// Whether `table` in `schema` is meant. A pattern without a schema means `default_schema`.
    #[must_use]
    pub fn matches(&self, schema: &str, table: &str, default_schema: &str) -> bool {
        let in_schema = match &self.schema {
            Some(part) => part.matches(schema),
            None => schema == default_schema,
        };
        in_schema && self.table.matches(table)
    }

    /// The one table that is named, unless this is a glob.
    #[must_use]
    pub fn into_name(self) -> Option<TableName> {
        let Part::Exact(table) = self.table else { return None };
        match self.schema {
            None => Some(TableName { schema: None, table }),
            Some(Part::Exact(schema)) => Some(TableName { schema: Some(schema), table }),
            Some(Part::Glob(_)) => None,
        }
    }
}

/// The text that was parsed.
impl fmt::Display for TablePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Splits one part off; the rest is empty or begins with a dot.
fn parse_part(text: &str, dialect: Dialect) -> Result<(Part, &str), NameError> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (name, after) = parse_quoted(quoted)?;
        return match after.chars().next() {
            None | Some('.') => Ok((Part::Exact(name), after)),
            Some(other) => Err(NameError::AfterQuote(other)),
        };
    }
    let end = text.find('.').unwrap_or(text.len());
    let (part, after) = text.split_at(end);
    if part.is_empty() {
        return Err(NameError::EmptyPart);
    }
    let plain = |char: char| char.is_alphanumeric() || matches!(char, '_' | '$' | '*' | '?');
    if let Some(odd) = part.chars().find(|char| !plain(*char)) {
        return Err(NameError::NeedsQuotes(odd));
    }
    let folded = dialect.fold(part);
    let part = if folded.contains(['*', '?']) { Part::Glob(folded) } else { Part::Exact(folded) };
    Ok((part, after))
}

/// Reads up to the closing quote.
fn parse_quoted(text: &str) -> Result<(String, &str), NameError> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"').ok_or(NameError::OpenQuote)?;
        name.push_str(before);
        match after.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None if name.is_empty() => return Err(NameError::EmptyPart),
            None if name.contains('\0') => return Err(NameError::Nul),
            None => return Ok((name, after)),
        }
    }
}

/// Whether `glob` (`*` any characters, `?` one) covers all of `name`. Linear in practice, no recursion.
fn glob_matches(glob: &str, name: &str) -> bool {
    let glob: Vec<char> = glob.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut in_name, mut star) = (0, 0, None);
    while in_name < name.len() {
        match glob.get(at) {
            Some('*') => {
                star = Some((at, in_name));
                at += 1;
            }
            Some(char) if *char == '?' || *char == name[in_name] => {
                at += 1;
                in_name += 1;
            }
            _ => match star {
                Some((star_at, from)) => {
                    at = star_at + 1;
                    in_name = from + 1;
                    star = Some((star_at, from + 1));
                }
                None => return false,
            },
        }
    }
    glob[at..].iter().all(|char| *char == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> TablePattern {
        TablePattern::parse(text, Dialect::Postgres).unwrap()
    }

    #[test]
    fn names_are_read_in_the_databases_quoting() {
        let name = TableName::parse(r#"public."Odd Näme.with ""quotes""""#, Dialect::Postgres).unwrap();
        assert_eq!(name, TableName::new("public", r#"Odd Näme.with "quotes""#));
        assert_eq!(name.quoted(), r#""public"."Odd Näme.with ""quotes""""#);
        let name = TableName::parse("Shop.Orders", Dialect::Postgres).unwrap();
        assert_eq!(name, TableName::new("shop", "orders"), "unquoted names are folded");
        let name = TableName::parse("Orders", Dialect::Sqlite).unwrap();
        assert_eq!(name, TableName { schema: None, table: "Orders".into() });
    }

    #[test]
    fn wrong_names_say_what_is_wrong() {
        let error = |text| TablePattern::parse(text, Dialect::Postgres).unwrap_err();
        assert_eq!(error(""), NameError::EmptyPart);
        assert_eq!(error("a."), NameError::EmptyPart);
        assert_eq!(error(r#""""#), NameError::EmptyPart);
        assert_eq!(error(r#"a."b"#), NameError::OpenQuote);
        assert_eq!(error(r#""a"b"#), NameError::AfterQuote('b'));
        assert_eq!(error("a b"), NameError::NeedsQuotes(' '));
        assert_eq!(error("a.b.c"), NameError::TooManyParts);
        assert_eq!(error("\"a\0\""), NameError::Nul);
        assert_eq!(TableName::parse("a.*", Dialect::Postgres).unwrap_err(), NameError::Glob);
    }

    #[test]
    fn globs_match_whole_names() {
        assert!(pattern("public.*").matches("public", "a.b", "public"));
        assert!(!pattern("public.*").matches("private", "a", "public"));
        assert!(pattern("order_?").matches("public", "order_1", "public"));
        assert!(!pattern("order_?").matches("public", "order_12", "public"));
        assert!(pattern("*.a*b*c").matches("x", "aXbbXc", "public"));
        assert!(!pattern("*.a*b*c").matches("x", "aXbbX", "public"));
        assert!(pattern(r#"public."a*""#).matches("public", "a*", "public"), "quoted stars are literal");
        assert!(!pattern(r#"public."a*""#).matches("public", "ab", "public"));
        assert!(pattern("orders").matches("public", "orders", "public"));
        assert!(!pattern("orders").is_glob() && pattern("o*").is_glob());
    }

    proptest! {
        #[test]
        fn what_is_displayed_is_read_back(schema in "[^\0]{1,8}", table in "[^\0]{1,12}") {
            let name = TableName::new(schema, table);
            prop_assert_eq!(&TableName::parse(&name.to_string(), Dialect::Postgres).unwrap(), &name);
            prop_assert_eq!(&TableName::parse(&name.quoted(), Dialect::Sqlite).unwrap(), &name);
        }

        #[test]
        fn parsing_never_panics(text in ".{0,24}") {
            let _parsed = TablePattern::parse(&text, Dialect::Postgres);
        }
    }
}
