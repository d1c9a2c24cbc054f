//! Columns that the source computes: a table of ours computes them as well, where this database can.
//!
//! The server is told their expressions, which come out of a topic: only what stays within its parentheses goes into a
//! statement. The column's comment says what it computes; one that computes something else is made anew.

use towpath_api::{Computed, ConnectorError, ErrorKind};
use towpath_sql::{Dialect, ident, literal, pg_type};

use super::catalog::Table;
use super::ddl::{is_known_type, locked};
use super::session::Session;

/// What stands before the expression in the comment on a column that we made.
pub(crate) const COMMENT: &str = "Computed by Towpath: ";

/// A column that this server can make.
struct Wanted<'a> {
    name: &'a str,
    ty: &'a str,
    expression: &'a str,
}

impl Wanted<'_> {
    fn comment(&self) -> String {
        format!("{COMMENT}{} {}", self.ty, self.expression)
    }
}

/// What of `computed` can be computed here.
async fn wanted<'a>(
    session: &mut Session,
    computed: &'a [Computed],
) -> Result<Vec<Wanted<'a>>, ConnectorError> {
    let mut wanted = Vec::new();
    for column in computed {
        let (ty, expression) =
            (pg_type::formatted(&column.source_type), pg_type::formatted(&column.expression));
        if let (Some(ty), Some(expression)) = (ty, expression)
            && is_contained(expression)
            && is_known_type(session, ty).await?
        {
            wanted.push(Wanted { name: &column.name, ty, expression });
        }
    }
    Ok(wanted)
}

/// Takes away columns of ours that do not compute what `computed` says, or whose names `fields` have; all of them, if
/// the others are going to be `changed`. Gives whether there were any.
pub(crate) async fn drop_stale(
    session: &mut Session,
    table: &Table,
    computed: &[Computed],
    changed: bool,
) -> Result<bool, ConnectorError> {
    let mut parts = Vec::new();
    if table.columns.iter().any(|column| column.computed_by_us.is_some()) {
        let wanted = wanted(session, computed).await?;
        for column in &table.columns {
            let Some(comment) = &column.computed_by_us else { continue };
            let stays =
                wanted.iter().any(|wanted| wanted.name == column.name && wanted.comment() == *comment);
            if changed || !stays {
                parts.push(format!("DROP COLUMN {}", ident(&column.name)));
            }
        }
    }
    if parts.is_empty() {
        return Ok(false);
    }
    let statement = format!("ALTER TABLE {} {}", table.name.quoted(), parts.join(", "));
    let schema = table.name.schema.as_deref().unwrap_or_default();
    locked(session, schema, &format!("change the columns of {}", table.name), &[statement]).await?;
    Ok(true)
}

/// Adds what is missing of `computed` to a table of ours. Gives whether anything was done.
pub(crate) async fn add_missing(
    session: &mut Session,
    table: &Table,
    computed: &[Computed],
) -> Result<bool, ConnectorError> {
    let missing = computed.iter().any(|column| table.column(&column.name).is_none());
    if !table.ours || !missing {
        return Ok(false);
    }
    let (quoted, schema) = (table.name.quoted(), table.name.schema.as_deref().unwrap_or_default());
    let what = format!("compute a column of {}", table.name);
    let mut done = false;
    for wanted in wanted(session, computed).await? {
        if table.column(wanted.name).is_some() {
            continue;
        }
        let name = ident(wanted.name);
        let statements = [
            format!(
                "ALTER TABLE {quoted} ADD COLUMN {name} {} GENERATED ALWAYS AS ({}) STORED",
                wanted.ty, wanted.expression
            ),
            format!("COMMENT ON COLUMN {quoted}.{name} IS {}", literal(&wanted.comment(), Dialect::Postgres)),
        ];
        match locked(session, schema, &what, &statements).await {
            Ok(()) => done = true,
            Err(error) if matches!(error.kind(), ErrorKind::RetryAfter(_)) => return Err(error),
            // A function of the source's own, for example.
            Err(error) => {
                tracing::warn!(table = %table.name, column = wanted.name, %error, "the column cannot be computed here");
            }
        }
    }
    Ok(done)
}

/// Whether `expression` cannot end the parentheses that it is put into: quotes are closed, parentheses match, and
/// there is neither a comment nor a semicolon nor a dollar quote.
fn is_contained(expression: &str) -> bool {
    let bytes = expression.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return false,
            },
            b';' | b'$' | 0 => return false,
            b'-' if bytes.get(at + 1) == Some(&b'-') => return false,
            b'/' if bytes.get(at + 1) == Some(&b'*') => return false,
            b'\'' | b'"' => {
                let escapes = *byte == b'\'' && at > 0 && matches!(bytes[at - 1], b'E' | b'e');
                match end_of_quoted(bytes, at, escapes) {
                    Some(end) => at = end,
                    None => return false,
                }
            }
            _ => {}
        }
        at += 1;
    }
    depth == 0
}

/// Where the quote that opens at `at` is closed.
fn end_of_quoted(bytes: &[u8], at: usize, escapes: bool) -> Option<usize> {
    let quote = bytes[at];
    let mut end = at + 1;
    loop {
        match bytes.get(end)? {
            b'\\' if escapes => end += 2,
            byte if *byte == quote && bytes.get(end + 1) == Some(&quote) => end += 2,
            byte if *byte == quote => return Some(end),
            _ => end += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_stays_within_its_parentheses() {
        for good in [
            "(n * 2)",
            "((a || ', '::text) || b)",
            "lower(\"Odd )\"\")\")",
            "(a || ')'::text)",
            "(a || E'\\\\'::text)",
            "(a || E'\\')'::text)",
            "(ARRAY[a, b])[1]",
            "- 1",
        ] {
            assert!(is_contained(good), "{good}");
        }
        for bad in [
            "1) STORED); DROP TABLE t; --",
            "1)",
            "(1",
            "'open",
            "\"open",
            "1 -- x",
            "1 /* x",
            "1; 2",
            "$$)$$",
            "E'\\'",
            "'\\') STORED, x int DEFAULT ('",
        ] {
            assert!(!is_contained(bad), "{bad}");
        }
    }
}
