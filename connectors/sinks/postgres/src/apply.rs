//! Taking the steps of a batch inside an open transaction.

use sqlx::Row;
use towpath_api::{Batch, ConnectorError, RecordView, Rejected, Value};
use towpath_sql::sink::{Change, Fault, Fold, Step, Upsert, Work};

use super::cells;
use super::columns::Target;
use super::plan::{CHECKED, Plan, UNCHECKED};
use super::session::{Session, TextArray, arguments, texts};

const WRITE: &str = "write the rows";
/// Fewer new rows than these are not worth a savepoint and a `COPY` of their own.
const COPY_ROWS_MIN: usize = 16;
/// Bytes of `COPY` text kept for the next batch.
const BUFFER_KEPT: usize = 8 * 1024 * 1024;

/// Writes steps. Records that it knows to be unwritable are collected; what the server refuses is a [`Fault::Data`].
pub(crate) struct Applier<'a> {
    pub(crate) session: &'a mut Session,
    pub(crate) buffer: &'a mut Vec<u8>,
    pub(crate) rejected: &'a mut Vec<Rejected>,
}

impl Applier<'_> {
    fn reject(&mut self, index: usize, error: ConnectorError) {
        self.rejected.push(Rejected { index, error });
    }

    /// Takes a step.
    pub(crate) async fn step(&mut self, work: &Work<'_, Plan>, step: Step) -> Result<(), Fault> {
        let plan = match &step {
            Step::Append { plan, .. }
            | Step::Fold { plan, .. }
            | Step::Change { plan, .. }
            | Step::Move { plan, .. }
            | Step::Truncate { plan, .. } => &work.plans[*plan],
        };
        if !plan.unchecked {
            return self.checked_step(work, step).await;
        }
        self.session.script("leave foreign keys unchecked", UNCHECKED.to_owned()).await?;
        self.checked_step(work, step).await?;
        self.session.script("check foreign keys", CHECKED.to_owned()).await.map(drop)
    }

    async fn checked_step(&mut self, work: &Work<'_, Plan>, step: Step) -> Result<(), Fault> {
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
            Step::Truncate { plan, .. } => self.truncate(&work.plans[plan]).await,
        }
    }

    /// Adds rows without looking at those that are there: by `COPY` where that is possible.
    async fn append(&mut self, plan: &Plan, batch: &Batch, records: &[usize]) -> Result<(), Fault> {
        let Some(copy) = &plan.statements.copy else {
            let mut columns = vec![TextArray::default(); plan.targets.len()];
            for index in records {
                let record = batch.record(*index);
                let value = |target: &Target| appended(plan, &record, target);
                if let Err(error) = push_row(&mut columns, plan.targets.iter(), value) {
                    self.reject(*index, error);
                }
            }
            return self.run(&plan.statements.insert, columns).await;
        };
        let rows = records.iter().map(|index| (*index, batch.record(*index)));
        let value = |record, target: &Target| appended(plan, &record, target);
        self.copy(plan, copy, rows, value).await
    }

    /// `COPY`s rows; each comes with the number of its record.
    async fn copy<'b, R: Copy>(
        &mut self,
        plan: &Plan,
        sql: &str,
        rows: impl Iterator<Item = (usize, R)>,
        value: impl Fn(R, &Target) -> Value<'b>,
    ) -> Result<(), Fault> {
        let mut buffer = std::mem::take(self.buffer);
        buffer.clear();
        for (index, row) in rows {
            let start = buffer.len();
            if let Err(error) = copy_row(&mut buffer, plan, |target| value(row, target)) {
                buffer.truncate(start);
                self.reject(index, error);
            }
        }
        let copied = if buffer.is_empty() { Ok(0) } else { self.session.copy_in(WRITE, sql, &buffer).await };
        buffer.shrink_to(BUFFER_KEPT);
        *self.buffer = buffer;
        copied.map(drop)
    }

    /// Writes rows that are new, as far as the records say. False if they were not all, and nothing was written.
    async fn copy_fresh(&mut self, plan: &Plan, batch: &Batch, fresh: &[Upsert]) -> Result<bool, Fault> {
        let Some(copy) = &plan.statements.copy else { return Ok(false) };
        if fresh.len() < COPY_ROWS_MIN || !plan.may_copy() {
            return Ok(false);
        }
        let before = self.rejected.len();
        self.session.script("set a savepoint", "SAVEPOINT towpath_copy".to_owned()).await?;
        let rows = fresh.iter().map(|upsert| (upsert.record, upsert));
        let value = |upsert: &Upsert, target: &Target| upsert.value(batch, &plan.layout, target.layout);
        match self.copy(plan, copy, rows, value).await {
            Ok(()) => Ok(true),
            Err(Fault::Fatal(error)) => Err(Fault::Fatal(error)),
            // A key that is there already, as a rule (a snapshot that was resumed). Whatever it is, the slow way will tell.
            Err(Fault::Data(_)) => {
                plan.pause_copy();
                self.rejected.truncate(before);
                self.session.script("roll back", "ROLLBACK TO towpath_copy".to_owned()).await?;
                Ok(false)
            }
        }
    }

    async fn fold(&mut self, plan: &Plan, batch: &Batch, fold: Fold) -> Result<(), Fault> {
        let mut keys = vec![TextArray::default(); plan.key.len()];
        for index in &fold.deletes {
            let record = batch.record(*index);
            if let Err(error) =
                push_row(&mut keys, key_targets(plan), |target| old_key_value(plan, &record, target))
            {
                self.reject(*index, error);
            }
        }
        self.run(&plan.statements.delete, keys).await?;
        let (mut partial, whole): (Vec<_>, Vec<_>) = fold.upserts.into_iter().partition(Upsert::is_partial);
        let (fresh, mut whole): (Vec<_>, Vec<_>) = whole.into_iter().partition(|upsert| upsert.fresh);
        if !self.copy_fresh(plan, batch, &fresh).await? {
            whole.extend(fresh);
        }
        let mut columns = vec![TextArray::default(); plan.targets.len()];
        for upsert in whole {
            let value = |target: &Target| upsert.value(batch, &plan.layout, target.layout);
            if let Err(error) = push_row(&mut columns, plan.targets.iter(), value) {
                self.reject(upsert.record, error);
            }
        }
        self.run(&plan.statements.upsert, columns).await?;
        while let Some(missing) = partial.first().map(|upsert| upsert.missing.clone()) {
            let (same, others) = partial.into_iter().partition(|upsert| upsert.missing == missing);
            partial = others;
            self.partial(plan, batch, same, &missing).await?;
        }
        Ok(())
    }

    /// Rows that do not tell the columns `missing`: those in the database keep theirs.
    async fn partial(
        &mut self,
        plan: &Plan,
        batch: &Batch,
        upserts: Vec<Upsert>,
        missing: &[usize],
    ) -> Result<(), Fault> {
        let told: Vec<&Target> =
            plan.targets.iter().filter(|target| !missing.contains(&target.layout)).collect();
        let set: Vec<&Target> =
            told.iter().copied().filter(|target| !plan.layout.is_key(target.layout)).collect();
        let keys: Vec<&Target> = key_targets(plan).collect();
        let both = || set.iter().chain(&keys).copied();
        let mut columns = vec![TextArray::default(); set.len() + keys.len()];
        let mut written = Vec::with_capacity(upserts.len());
        for upsert in upserts {
            let value = |target: &Target| upsert.value(batch, &plan.layout, target.layout);
            match push_row(&mut columns, both(), value) {
                Ok(()) => written.push((upsert, false)),
                Err(error) => self.reject(upsert.record, error),
            }
        }
        if written.is_empty() {
            return Ok(());
        }
        let sql = plan.statements.update_of(&set, &keys);
        for row in self.session.fetch(WRITE, &sql, arguments(columns)?).await? {
            let place = row.try_get::<i64, _>(0).ok().and_then(|place| usize::try_from(place - 1).ok());
            if let Some((_, found)) = place.and_then(|place| written.get_mut(place)) {
                *found = true;
            }
        }
        let mut fresh = vec![TextArray::default(); told.len()];
        for (upsert, _) in written.iter().filter(|(_, found)| !found) {
            if upsert.may_insert {
                let value = |target: &Target| upsert.value(batch, &plan.layout, target.layout);
                push_row(&mut fresh, told.iter().copied(), value)?;
            } else {
                self.reject(upsert.record, row_missing(plan));
            }
        }
        self.run(&plan.statements.insert_of(&told), fresh).await
    }

    /// A change of the key that does not tell every column: the row keeps those.
    async fn relocate(
        &mut self,
        plan: &Plan,
        batch: &Batch,
        delete: usize,
        create: usize,
    ) -> Result<(), Fault> {
        let (old, new) = (batch.record(delete), batch.record(create));
        let told = |target: &&Target| !matches!(plan.layout.value(&new, target.layout), Value::Absent);
        let keys: Vec<&Target> = key_targets(plan).collect();
        let set: Vec<&Target> = plan.targets.iter().filter(told).collect();
        let row = |targets: &[&Target], is_old: bool| -> Result<Vec<TextArray>, ConnectorError> {
            let mut columns = vec![TextArray::default(); targets.len() + keys.len()];
            let (values, key) = columns.split_at_mut(targets.len());
            push_row(values, targets.iter().copied(), |target| plan.layout.value(&new, target.layout))?;
            push_row(key, keys.iter().copied(), |target| match is_old {
                true => old_key_value(plan, &old, target),
                false => plan.layout.key_value(&new, target.layout),
            })?;
            Ok(columns)
        };
        if keys.iter().any(|key| key.column.identity_always) {
            let message = format!("the key of {} is GENERATED ALWAYS and cannot be changed", plan.table);
            self.reject(create, ConnectorError::terminal("SINK_KEY_GENERATED", message));
            return Ok(());
        }
        // A snapshot that is newer than this change has the row under its new key already.
        let others: Vec<&Target> =
            set.iter().copied().filter(|target| !plan.layout.is_key(target.layout)).collect();
        let (present, moved) = match (row(&others, false), row(&set, true)) {
            (Ok(present), Ok(moved)) => (present, moved),
            (Err(error), _) | (_, Err(error)) => {
                self.reject(create, error);
                return Ok(());
            }
        };
        let sql = plan.statements.update_of(&others, &keys);
        if !self.session.fetch(WRITE, &sql, arguments(present)?).await?.is_empty() {
            let mut columns = vec![TextArray::default(); keys.len()];
            push_row(&mut columns, keys.iter().copied(), |target| old_key_value(plan, &old, target))?;
            return self.run(&plan.statements.delete, columns).await;
        }
        let sql = plan.statements.update_of(&set, &keys);
        if self.session.fetch(WRITE, &sql, arguments(moved)?).await?.is_empty() {
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
        // The server lets nobody set an identity that is always its own.
        let told = |target: &&Target| {
            !target.column.identity_always
                && !matches!(plan.layout.value(&record, target.layout), Value::Absent)
        };
        let set: Option<Vec<&Target>> =
            (change == Change::Update).then(|| plan.targets.iter().filter(told).collect());
        let known = |target: &&Target| !matches!(plan.layout.before(&record, target.layout), Value::Absent);
        let before: Vec<&Target> = plan.targets.iter().filter(known).collect();
        if set.as_ref().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        let mut values: Vec<Option<String>> = Vec::new();
        let after = set.iter().flatten().map(|target| (*target, plan.layout.value(&record, target.layout)));
        let old = before.iter().map(|target| (*target, plan.layout.before(&record, target.layout)));
        for (target, value) in after.chain(old) {
            match text(target, value) {
                Ok(text) => values.push(text),
                Err(error) => {
                    self.reject(index, error);
                    return Ok(());
                }
            }
        }
        let nulls: Vec<bool> = values[values.len() - before.len()..].iter().map(Option::is_none).collect();
        let sql = plan.statements.change_one(set.as_deref(), &before, &nulls);
        let arguments = texts(values.iter().map(Option::as_deref))?;
        if self.session.execute(WRITE, &sql, arguments).await? == 0 {
            let error = ConnectorError::terminal(
                "SINK_ROW_MISSING",
                format!("no row of {} equals the one before the change", plan.table),
            );
            self.reject(
                index,
                error.with_hint("the table was changed by somebody else, or differs in its types"),
            );
        }
        Ok(())
    }

    async fn truncate(&mut self, plan: &Plan) -> Result<(), Fault> {
        let quick =
            format!("SAVEPOINT towpath_truncate; {}; RELEASE towpath_truncate", plan.statements.truncate);
        match self.session.script("truncate the table", quick).await {
            Ok(_) => return Ok(()),
            // No privilege to truncate, or other tables refer to it: delete row by row.
            Err(Fault::Fatal(error)) if matches!(error.code(), "PG_PRIVILEGE" | "PG_SERVER") => {}
            Err(fault) => return Err(fault),
        }
        let slow = format!("ROLLBACK TO towpath_truncate; {}", plan.statements.delete_all);
        self.session.script("empty the table", slow).await.map(drop)
    }

    async fn run(&mut self, sql: &str, columns: Vec<TextArray>) -> Result<(), Fault> {
        if columns.first().is_none_or(|column| column.len() == 0) {
            return Ok(());
        }
        self.session.execute(WRITE, sql, arguments(columns)?).await.map(drop)
    }
}

fn key_targets(plan: &Plan) -> impl Iterator<Item = &Target> {
    plan.key.iter().map(|index| &plan.targets[*index])
}

fn old_key_value<'a>(plan: &Plan, record: &RecordView<'a>, target: &Target) -> Value<'a> {
    plan.layout.old_key_value(record, target.layout)
}

fn appended<'a>(plan: &Plan, record: &RecordView<'a>, target: &Target) -> Value<'a> {
    if plan.layout.is_append() {
        plan.layout.appended(record, target.layout)
    } else {
        plan.layout.value(record, target.layout)
    }
}

/// Appends one row to the columns, or nothing.
fn push_row<'t, 'v>(
    columns: &mut [TextArray],
    targets: impl Iterator<Item = &'t Target>,
    value: impl Fn(&Target) -> Value<'v>,
) -> Result<(), ConnectorError> {
    let mark = columns.first().map_or(0, TextArray::len);
    for (index, target) in targets.enumerate() {
        let pushed = columns[index].push(|out| cells::write(out, &target.codec, value(target)));
        if let Err(error) = pushed {
            for column in &mut columns[..index] {
                column.pop(mark);
            }
            return Err(of_column(target, error));
        }
    }
    Ok(())
}

fn copy_row<'v>(
    out: &mut Vec<u8>,
    plan: &Plan,
    value: impl Fn(&Target) -> Value<'v>,
) -> Result<(), ConnectorError> {
    for (index, target) in plan.targets.iter().enumerate() {
        if index > 0 {
            out.push(b'\t');
        }
        cells::write_copy(out, &target.codec, value(target)).map_err(|error| of_column(target, error))?;
    }
    out.push(b'\n');
    Ok(())
}

/// A value as the text of an argument.
fn text(target: &Target, value: Value<'_>) -> Result<Option<String>, ConnectorError> {
    let mut out = Vec::new();
    if !cells::write(&mut out, &target.codec, value).map_err(|error| of_column(target, error))? {
        return Ok(None);
    }
    String::from_utf8(out).map(Some).map_err(|_| {
        ConnectorError::bug("SINK_VALUE", format!("column {:?} is not text", target.column.name))
    })
}

fn of_column(target: &Target, error: ConnectorError) -> ConnectorError {
    let message = format!("column {:?}: {}", target.column.name, error.full_message());
    ConnectorError::terminal(error.code(), message)
}

fn row_missing(plan: &Plan) -> ConnectorError {
    ConnectorError::terminal(
        "SINK_ROW_MISSING",
        format!("the change leaves columns out that the source did not tell, and {} does not have the row", plan.table),
    )
    .with_hint("REPLICA IDENTITY FULL at the source makes every change tell all columns; a new snapshot heals the row")
}
