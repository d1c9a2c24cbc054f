//! Row-by-row comparison of tables in two databases.

use anyhow::{Context as _, Result, bail};
use towpath_harness::Postgres;

/// A table to compare: its name in either database, as SQL writes it.
#[derive(Debug, Clone)]
pub struct Table {
    /// In the source.
    pub source: String,
    /// In the target.
    pub target: String,
}

impl Table {
    /// The same name in both.
    #[must_use]
    pub fn same(name: &str) -> Self {
        Self { source: name.to_owned(), target: name.to_owned() }
    }
}

/// Compares tables as multisets of rows in text form: nothing may be missing, nothing may be there twice.
///
/// # Errors
/// The first table that differs, with some of the rows that do.
pub fn assert_equal(server: &Postgres, source: &str, target: &str, tables: &[Table]) -> Result<()> {
    for table in tables {
        let theirs = rows(server, source, &table.source, None)?;
        let columns = columns(server, source, &table.source)?;
        let ours = rows(server, target, &table.target, Some(&columns))
            .with_context(|| format!("the target of {} cannot be read", table.source))?;
        if theirs != ours {
            bail!("{} differs: {}", table.source, difference(&theirs, &ours));
        }
        if theirs.is_empty() {
            bail!("{} is empty: the comparison would prove nothing", table.source);
        }
    }
    Ok(())
}

/// The columns by name, each as text: a target's columns may stand in another order.
fn columns(server: &Postgres, database: &str, table: &str) -> Result<String> {
    let sql = format!(
        "SELECT string_agg(quote_ident(attname) || '::text', ', ' ORDER BY attnum) FROM pg_attribute \
         WHERE attrelid = '{}'::regclass AND attnum > 0 AND NOT attisdropped",
        table.replace('\'', "''")
    );
    Ok(server.psql(database, &sql)?.trim().to_owned())
}

fn rows(server: &Postgres, database: &str, table: &str, list: Option<&str>) -> Result<Vec<String>> {
    let list = match list {
        Some(list) => list.to_owned(),
        None => columns(server, database, table)?,
    };
    let settings = "SET DateStyle = 'ISO'; SET TimeZone = 'UTC'; SET IntervalStyle = 'postgres';";
    let text = server.psql(database, &format!("{settings} COPY (SELECT {list} FROM {table}) TO STDOUT"))?;
    let mut rows: Vec<_> = text.lines().filter(|line| *line != "SET").map(str::to_owned).collect();
    rows.sort_unstable();
    Ok(rows)
}

/// Counts and samples of what is on one side only; both are sorted.
fn difference(theirs: &[String], ours: &[String]) -> String {
    let (mut missing, mut surplus) = (Vec::new(), Vec::new());
    let (mut left, mut right) = (theirs.iter().peekable(), ours.iter().peekable());
    loop {
        match (left.peek(), right.peek()) {
            (Some(a), Some(b)) if a == b => {
                left.next();
                right.next();
            }
            (Some(a), Some(b)) if a > b => surplus.extend(right.next()),
            (Some(_), _) => missing.extend(left.next()),
            (None, Some(_)) => surplus.extend(right.next()),
            (None, None) => break,
        }
    }
    let sample = |rows: &[&String]| {
        rows.iter()
            .take(5)
            .map(|row| format!("\n    {}", row.chars().take(300).collect::<String>()))
            .collect::<String>()
    };
    format!(
        "{} rows in the source, {} in the target; {} missing{}\n  {} too many{}",
        theirs.len(),
        ours.len(),
        missing.len(),
        sample(&missing),
        surplus.len(),
        sample(&surplus)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_counts_duplicates() {
        let rows = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let text = difference(&rows("a b c"), &rows("a a c d"));
        assert!(text.contains("3 rows in the source, 4 in the target; 1 missing\n    b"), "{text}");
        assert!(text.contains("2 too many\n    a\n    d"), "{text}");
    }
}
