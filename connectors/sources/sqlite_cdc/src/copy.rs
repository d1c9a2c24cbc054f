//! Copying the rows that a table holds, page by page, in one read transaction.

use std::ops::ControlFlow;

use sqlx::{Row as _, SqliteConnection};
use towpath_api::{ConnectorError, Progress};
use towpath_sql::{ident, idents};

use super::capture::{Capture, Captured};
use super::database::{self, each, execute, get, get_text, number};
use super::plan::{Planned, Start, TableOffset};
use super::records::{self, Output};
use super::table::Table;

/// A copy under way.
pub(crate) struct Copying {
    reader: SqliteConnection,
    epoch: i64,
    table: Table,
    /// By what rows are ordered and found again: SQL expressions.
    order: Order,
    from: i64,
    after: Option<String>,
    attempt: u32,
    /// Whether what was written before is forgotten first.
    whole: bool,
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
        planned: Planned,
        read_id: i64,
        progress: &std::sync::Arc<Progress>,
    ) -> Result<Self, ConnectorError> {
        let Captured { epoch, table, .. } = planned.captured;
        execute(&mut reader, "BEGIN".to_owned()).await?;
        // The first read fixes what the transaction sees: outbox id and rows are of the same moment.
        let now = capture.last_id(&mut reader).await?;
        let count = number(&mut reader, format!("SELECT count(*) FROM {}", ident(&table.name))).await?;
        progress.expect(count.unsigned_abs());
        // Another attempt writes under another lane: its rows are not those of the one before.
        let (from, after, attempt, whole) = match planned.start {
            Start::Fresh => (now, None, 0, false),
            Start::Resume(offset) => (offset.from, offset.after, offset.attempt, offset.whole),
            Start::Rows { attempt } => (read_id, None, attempt, false),
            Start::Whole { attempt } => (now, None, attempt, true),
        };
        let order = Order::of(&table);
        // Where rows behind it are durable, so is the truncate.
        let truncate = whole && after.is_none();
        let progress = std::sync::Arc::clone(progress);
        Ok(Self { reader, epoch, table, order, from, after, attempt, whole, truncate, progress })
    }

    /// Whether nothing may be written before its beginning is stored: what was written before could not be told from
    /// what comes.
    pub(crate) fn needs_intent(&self) -> bool {
        self.after.is_none() && (self.whole || !self.table.has_key())
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
            epoch: self.epoch,
            whole: self.whole,
        }
    }

    /// Reads the next rows into `output`.
    pub(crate) async fn page(
        &mut self,
        limit: usize,
        bytes_max: usize,
        output: &mut Output,
    ) -> Result<Page, ConnectorError> {
        if std::mem::take(&mut self.truncate) {
            records::truncate(&mut output.builder, &self.table);
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
        let now_ms = records::now_ms();
        let (from, attempt) = (self.from, self.attempt);
        let Self { reader, table, after, progress, .. } = self;
        let mut found = 0;
        let mut full = false;
        each(reader, sql, |row| {
            let text = get_text(row, 2)?.unwrap_or_default();
            let rowid = row.try_get::<Option<i64>, _>(1).ok().flatten();
            let place = rowid.map(|rowid| records::Place { from, attempt, rowid });
            let at: String = get(row, 0)?;
            match String::from_utf8(text) {
                Ok(text) => {
                    records::read(&mut output.builder, table, &text, place, now_ms).map_err(|error| {
                        ConnectorError::terminal(
                            "SQLITE_ROW",
                            format!("a row of `{}` cannot be read", table.name),
                        )
                        .with_cause(error)
                    })?
                }
                Err(error) => output.reject(format!("table {}, row {at}", table.name), error),
            }
            *after = Some(at);
            progress.advance(1);
            found += 1;
            full = output.size_in_bytes() >= bytes_max;
            Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
        .await?;
        Ok(if !full && found < limit.max(1) { Page::Last } else { Page::More })
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
            None if table.has_key() => Self::Key(table.key_names().map(str::to_owned).collect()),
            None => Self::Key(table.columns.iter().map(|column| column.name.clone()).collect()),
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
            Self::Key(names) => {
                // Text by its bytes: it may hold NULs, and what is no UTF-8.
                let literal = |name: &String| {
                    let name = ident(name);
                    format!(
                        "CASE typeof({name}) WHEN 'text' THEN 'CAST(X''' || hex({name}) || ''' AS TEXT)' \
                         ELSE quote({name}) END"
                    )
                };
                names.iter().map(literal).collect::<Vec<_>>().join(" || ',' || ")
            }
        }
    }
}
