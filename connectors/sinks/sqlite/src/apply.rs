//! Taking the steps of a batch inside an open transaction.

use sqlx::sqlite::SqliteArguments;
use towpath_api::{Batch, ConnectorError, RecordView, Rejected, Value};
use towpath_sql::sink::{Change, Fault, Fold, Step, Upsert, Work};

use super::cells;
use super::database::Database;
use super::plan::Plan;
use super::statements::Statements;

const WRITE: &str = "write the rows";

/// Takes steps. Records that it knows to be unwritable are collected; what the database refuses is a
/// [`Fault::Data`].
pub(crate) struct Applier<'a> {
    pub(crate) database: &'a mut Database,
    pub(crate) rejected: &'a mut Vec<Rejected>,
}

impl Applier<'_> {
    /// Takes a step.
    pub(crate) async fn step(&mut self, work: &Work<'_, Plan>, step: Step) -> Result<(), Fault> {
        let batch = work.batch;
        match step {
            Step::Append { plan, records } => self.append(&work.plans[plan], batch, &records).await,
            Step::Fold { plan, fold } => self.fold(&work.plans[plan], batch, fold).await,
            Step::Change { plan, record, change } => {
                self.change(&work.plans[plan], batch.record(record), record, change).await
            }
            Step::Move { plan, delete, create } => {
                self.relocate(&work.plans[plan], batch, delete, create).await
            }
            Step::Truncate { plan, .. } => {
                let sql = work.plans[plan].statements.truncate.clone();
                self.database.script("empty the table", sql).await.map(drop)
            }
        }
    }

    fn reject(&mut self, index: usize, error: ConnectorError) {
        self.rejected.push(Rejected { index, error });
    }

    /// Runs a statement for `rows`, in chunks of the sizes that are prepared.
    async fn chunked<R>(
        &mut self,
        rows: &[R],
        width: usize,
        sql: impl Fn(usize) -> String,
        push: impl Fn(&mut SqliteArguments, &R) -> Result<(), ConnectorError>,
    ) -> Result<(), Fault> {
        let (mut rest, mut statement) = (rows, (0, String::new()));
        while !rest.is_empty() {
            let size = Statements::chunk(rest.len(), width);
            if statement.0 != size {
                statement = (size, sql(size));
            }
            let (chunk, after) = rest.split_at(size);
            let mut arguments = SqliteArguments::default();
            for row in chunk {
                push(&mut arguments, row)?;
            }
            self.database.execute(WRITE, &statement.1, arguments).await?;
            rest = after;
        }
        Ok(())
    }

    async fn append(&mut self, plan: &Plan, batch: &Batch, records: &[usize]) -> Result<(), Fault> {
        let (layout, columns) = (&plan.layout, &plan.columns);
        let push = |arguments: &mut SqliteArguments, index: &usize| {
            let record = batch.record(*index);
            columns.iter().try_for_each(|column| {
                let value = if layout.is_append() {
                    layout.appended(&record, *column)
                } else {
                    layout.value(&record, *column)
                };
                cells::push(arguments, value)
            })
        };
        self.chunked(records, columns.len(), |rows| plan.statements.insert(columns, rows), push).await
    }

    async fn fold(&mut self, plan: &Plan, batch: &Batch, fold: Fold) -> Result<(), Fault> {
        let (layout, columns) = (&plan.layout, &plan.columns);
        let push = |arguments: &mut SqliteArguments, index: &usize| {
            push_old_key(arguments, plan, &batch.record(*index))
        };
        self.chunked(&fold.deletes, layout.key.len(), |rows| plan.statements.delete(rows), push).await?;
        let (whole, partial): (Vec<_>, Vec<_>) =
            fold.upserts.into_iter().partition(|upsert| !upsert.is_partial());
        let push = |arguments: &mut SqliteArguments, upsert: &Upsert| {
            columns.iter().try_for_each(|column| cells::push(arguments, upsert.value(batch, layout, *column)))
        };
        self.chunked(&whole, columns.len(), |rows| plan.statements.upsert(columns, rows), push).await?;
        for upsert in partial {
            self.partial(plan, batch, &upsert).await?;
        }
        Ok(())
    }

    /// A row that does not tell every column: the one in the database keeps those.
    async fn partial(&mut self, plan: &Plan, batch: &Batch, upsert: &Upsert) -> Result<(), Fault> {
        let layout = &plan.layout;
        let told: Vec<usize> =
            plan.columns.iter().copied().filter(|column| !upsert.missing.contains(column)).collect();
        let set: Vec<usize> = told.iter().copied().filter(|column| !layout.is_key(*column)).collect();
        let mut arguments = SqliteArguments::default();
        for column in set.iter().chain(&layout.key) {
            cells::push(&mut arguments, upsert.value(batch, layout, *column))?;
        }
        if self.database.execute(WRITE, &plan.statements.update(&set), arguments).await? > 0 {
            return Ok(());
        }
        if !upsert.may_insert {
            self.reject(upsert.record, row_missing(plan));
            return Ok(());
        }
        let mut arguments = SqliteArguments::default();
        for column in &told {
            cells::push(&mut arguments, upsert.value(batch, layout, *column))?;
        }
        self.database.execute(WRITE, &plan.statements.insert(&told, 1), arguments).await.map(drop)
    }

    /// A change of the key that does not tell every column: the row keeps those.
    async fn relocate(
        &mut self,
        plan: &Plan,
        batch: &Batch,
        delete: usize,
        create: usize,
    ) -> Result<(), Fault> {
        let layout = &plan.layout;
        let (old, new) = (batch.record(delete), batch.record(create));
        let told = |column: &usize| !matches!(layout.value(&new, *column), Value::Absent);
        let all: Vec<usize> = plan.columns.iter().copied().filter(told).collect();
        let others: Vec<usize> = all.iter().copied().filter(|column| !layout.is_key(*column)).collect();
        let row = |set: &[usize], is_old: bool| -> Result<SqliteArguments, ConnectorError> {
            let mut arguments = SqliteArguments::default();
            for column in set {
                cells::push(&mut arguments, layout.value(&new, *column))?;
            }
            if is_old {
                push_old_key(&mut arguments, plan, &old)?;
            } else {
                for column in &layout.key {
                    cells::push(&mut arguments, layout.key_value(&new, *column))?;
                }
            }
            Ok(arguments)
        };
        // A snapshot that is newer than this change has the row under its new key already.
        let sql = plan.statements.update(&others);
        if self.database.execute(WRITE, &sql, row(&others, false)?).await? > 0 {
            let mut arguments = SqliteArguments::default();
            push_old_key(&mut arguments, plan, &old)?;
            return self.database.execute(WRITE, &plan.statements.delete(1), arguments).await.map(drop);
        }
        if self.database.execute(WRITE, &plan.statements.update(&all), row(&all, true)?).await? == 0 {
            self.reject(create, row_missing(plan));
        }
        Ok(())
    }

    /// A change or deletion of exactly one row that equals the image before.
    async fn change(
        &mut self,
        plan: &Plan,
        record: RecordView<'_>,
        index: usize,
        change: Change,
    ) -> Result<(), Fault> {
        let layout = &plan.layout;
        let told = |column: &usize| !matches!(layout.value(&record, *column), Value::Absent);
        let set: Option<Vec<usize>> =
            (change == Change::Update).then(|| plan.columns.iter().copied().filter(told).collect());
        let known = |column: &usize| !matches!(layout.before(&record, *column), Value::Absent);
        let before: Vec<usize> = plan.columns.iter().copied().filter(known).collect();
        if set.as_ref().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        let Some(sql) = plan.statements.change_one(set.as_deref(), &before) else {
            let message = format!("rows of {} cannot be told apart: it is WITHOUT ROWID", plan.table);
            self.reject(
                index,
                ConnectorError::terminal("SINK_NO_KEY", message).with_hint("name a key with `key`"),
            );
            return Ok(());
        };
        let mut arguments = SqliteArguments::default();
        for column in set.iter().flatten() {
            cells::push(&mut arguments, layout.value(&record, *column))?;
        }
        for column in &before {
            cells::push(&mut arguments, layout.before(&record, *column))?;
        }
        if self.database.execute(WRITE, &sql, arguments).await? == 0 {
            let error = ConnectorError::terminal(
                "SINK_ROW_MISSING",
                format!("no row of {} equals the one before the change", plan.table),
            );
            self.reject(index, error.with_hint("the table was changed by somebody else"));
        }
        Ok(())
    }
}

fn push_old_key(
    arguments: &mut SqliteArguments,
    plan: &Plan,
    record: &RecordView<'_>,
) -> Result<(), ConnectorError> {
    let layout = &plan.layout;
    layout.key.iter().try_for_each(|column| cells::push(arguments, layout.old_key_value(record, *column)))
}

fn row_missing(plan: &Plan) -> ConnectorError {
    ConnectorError::terminal(
        "SINK_ROW_MISSING",
        format!(
            "the change leaves columns out that the source did not tell, and {} does not have the row",
            plan.table
        ),
    )
    .with_hint("let the source tell whole rows; a new snapshot heals the row")
}
