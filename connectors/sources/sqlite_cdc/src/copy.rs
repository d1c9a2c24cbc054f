//! Copying the rows that a table holds, page by page, in one read transaction.

use sqlx::{Row as _, SqliteConnection};
use towpath_api::{BatchBuilder, ConnectorError, Progress};
use towpath_sql::{ident, idents};

use super::capture::Capture;
use super::database::{self, execute, get, number, rows};
use super::records;
use super::table::Table;
use super::task::TableOffset;

/// A copy under way.
pub(crate) struct Copying {
    reader: SqliteConnection,
    table: Table,
    /// By what rows are ordered and found again: SQL expressions.
    order: Order,
    from: i64,
    after: Option<String>,
    attempt: u32,
    /// Whether what an earlier attempt wrote is to be forgotten first.
    truncate: bool,
    progress: std::sync::Arc<Progress>,
}

enum Order {
    /// By rowid, under the name that no column hides.
    Rowid(&'static str),
    /// By primary key (WITHOUT ROWID tables always have one).
    Key(Vec<String>),
}

/// What a page was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    /// There may be more.
    More,
    /// There is no more.
    Last,
}

impl Copying {
    pub(crate) async fn start(
        mut reader: SqliteConnection,
        capture: &Capture,
        table: Table,
        resumed: Option<TableOffset>,
        progress: &std::sync::Arc<Progress>,
    ) -> Result<Self, ConnectorError> {
        execute(&mut reader, "BEGIN".to_owned()).await?;
        // The first read fixes what the transaction sees: outbox id and rows are of the same moment.
        let now = capture.last_id(&mut reader).await?;
        let count = number(&mut reader, format!("SELECT count(*) FROM {}", ident(&table.name))).await?;
        progress.expect(count.unsigned_abs());
        let (from, after, attempt) = match &resumed {
            Some(offset) if table.has_key() => (offset.from, offset.after.clone(), offset.attempt),
            // Another attempt writes under another lane: its rows are not those of the one before.
            Some(offset) => (now, None, offset.attempt.saturating_add(1)),
            None => (now, None, 0),
        };
        let order = Order::of(&table);
        let truncate = resumed.is_some() && !table.has_key();
        let progress = std::sync::Arc::clone(progress);
        Ok(Self { reader, table, order, from, after, attempt, truncate, progress })
    }

    pub(crate) const fn table(&self) -> &Table {
        &self.table
    }

    pub(crate) fn offset(&self, done: bool) -> TableOffset {
        TableOffset {
            v: 1,
            from: self.from,
            done,
            after: if done { None } else { self.after.clone() },
            attempt: self.attempt,
        }
    }

    /// Reads the next rows into `builder`.
    pub(crate) async fn page(
        &mut self,
        limit: usize,
        bytes_max: usize,
        builder: &mut BatchBuilder,
    ) -> Result<Page, ConnectorError> {
        if std::mem::take(&mut self.truncate) {
            records::truncate(builder, &self.table);
        }
        let condition = self
            .after
            .as_ref()
            .map_or_else(String::new, |after| format!(" WHERE ({}) > ({after})", self.order.expression()));
        let sql = format!(
            "SELECT {}, {}, {} FROM {}{condition} ORDER BY {} LIMIT {}",
            self.order.place(),
            self.order.rowid().unwrap_or("NULL"),
            self.table.row_expression(""),
            ident(&self.table.name),
            self.order.expression(),
            limit.max(1)
        );
        let found = rows(&mut self.reader, sql).await?;
        let now_ms = records::now_ms();
        for (index, row) in found.iter().enumerate() {
            let text: String = get(row, 2)?;
            let rowid = row.try_get::<Option<i64>, _>(1).ok().flatten();
            let place = rowid.map(|rowid| records::Place { from: self.from, attempt: self.attempt, rowid });
            records::read(builder, &mut self.table, &text, place, now_ms).map_err(|error| {
                ConnectorError::terminal(
                    "SQLITE_ROW",
                    format!("a row of `{}` cannot be read", self.table.name),
                )
                .with_cause(error)
            })?;
            self.after = Some(get(row, 0)?);
            self.progress.advance(1);
            if builder.size_in_bytes() >= bytes_max && index + 1 < found.len() {
                return Ok(Page::More);
            }
        }
        Ok(if found.len() < limit.max(1) { Page::Last } else { Page::More })
    }

    /// Ends the read transaction.
    pub(crate) async fn finish(self) {
        database::close(self.reader).await;
    }
}

impl Order {
    fn of(table: &Table) -> Self {
        let taken = |name: &str| table.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
        let free = ["rowid", "_rowid_", "oid"].into_iter().find(|name| !taken(name));
        match free.filter(|_| table.has_rowid) {
            Some(name) => Self::Rowid(name),
            None => Self::Key(match table.schema.key() {
                Some(key) => key.fields.iter().map(|field| field.name.clone()).collect(),
                None => table.columns.iter().map(|column| column.name.clone()).collect(),
            }),
        }
    }

    fn rowid(&self) -> Option<&'static str> {
        match self {
            Self::Rowid(name) => Some(name),
            Self::Key(_) => None,
        }
    }

    fn expression(&self) -> String {
        match self {
            Self::Rowid(name) => (*name).to_owned(),
            Self::Key(names) => idents(names.iter().map(String::as_str)),
        }
    }

    /// An expression whose value is a row's place as SQL literals.
    fn place(&self) -> String {
        match self {
            Self::Rowid(name) => format!("quote({name})"),
            Self::Key(names) => names
                .iter()
                .map(|name| format!("quote({})", ident(name)))
                .collect::<Vec<_>>()
                .join(" || ',' || "),
        }
    }
}
