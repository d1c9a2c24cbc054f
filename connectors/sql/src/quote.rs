//! Quoting of identifiers and literals: the only place where SQL is built from names.

/// The family of SQL that a text is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// PostgreSQL: unquoted names are folded to lower case.
    Postgres,
    /// SQLite: names keep the case in which they are written.
    Sqlite,
}

impl Dialect {
    /// What the database takes an unquoted name for.
    #[must_use]
    pub fn fold(self, name: &str) -> String {
        match self {
            Self::Postgres => name.to_ascii_lowercase(),
            Self::Sqlite => name.to_owned(),
        }
    }
}

/// `name` as a quoted identifier: in double quotes, which are doubled inside. Right for both dialects.
#[must_use]
pub fn ident(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 2);
    push_ident(&mut out, name);
    out
}

/// Appends [`ident`] of `name`.
pub fn push_ident(out: &mut String, name: &str) {
    out.push('"');
    for part in name.split_inclusive('"') {
        out.push_str(part);
        if part.ends_with('"') {
            out.push('"');
        }
    }
    out.push('"');
}

/// `names` as quoted identifiers with commas between them.
#[must_use]
pub fn idents<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut out = String::new();
    for name in names {
        if !out.is_empty() {
            out.push_str(", ");
        }
        push_ident(&mut out, name);
    }
    out
}

/// `text` as a string literal that means the same whatever `standard_conforming_strings` says: quotes are doubled,
/// and PostgreSQL gets the `E''` form when there is a backslash.
#[must_use]
pub fn literal(text: &str, dialect: Dialect) -> String {
    let escape = dialect == Dialect::Postgres && text.contains('\\');
    let mut out = String::with_capacity(text.len() + 4);
    if escape {
        // The space keeps the E apart from a word before it.
        out.push_str(" E");
    }
    out.push('\'');
    for char in text.chars() {
        if char == '\'' || (escape && char == '\\') {
            out.push(char);
        }
        out.push(char);
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(ident("a"), r#""a""#);
        assert_eq!(ident(r#"Odd Näme.with "quotes""#), r#""Odd Näme.with ""quotes""""#);
        assert_eq!(ident(r#"""#), r#""""""#);
        assert_eq!(ident(""), r#""""#);
        assert_eq!(idents(["a", "b\"c"]), r#""a", "b""c""#);
    }

    #[test]
    fn literals_survive_quotes_and_backslashes() {
        assert_eq!(literal("it's", Dialect::Postgres), "'it''s'");
        assert_eq!(literal(r"a\'b", Dialect::Postgres), r" E'a\\''b'");
        assert_eq!(literal(r"a\'b", Dialect::Sqlite), r"'a\''b'");
    }
}
