//! The frame of the transforms that change fields: plans per schema, made once, and the rows written by them.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use towpath_api::batch::RecordBuilder;
use towpath_api::{
    Batch, BatchBuilder, ConnectorError, EventSchema, Field, RecordView, RejectedRecords, Row, RowSchema,
    RowWriter, SchemaId, Transform, Transformed, Value,
};

use super::options::Only;

/// Plans kept before the cache starts anew: a stream with more shapes pays for planning them again.
const PLANS_MAX: usize = 1_024;

/// Why a record cannot be transformed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) hint: Option<&'static str>,
}

impl Refusal {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    pub(crate) fn with_hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }
}

impl From<Refusal> for ConnectorError {
    fn from(refusal: Refusal) -> Self {
        let error = Self::terminal(refusal.code, refusal.message);
        match refusal.hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

/// A plan, or why there is none.
type Planned<P> = Arc<Result<P, Refusal>>;

/// Plans by schema, bounded; the last one is found without hashing.
#[derive(Debug)]
pub(crate) struct Plans<P> {
    known: HashMap<SchemaId, Planned<P>>,
    last: Option<(Arc<EventSchema>, Planned<P>)>,
}

impl<P> Default for Plans<P> {
    fn default() -> Self {
        Self { known: HashMap::new(), last: None }
    }
}

impl<P> Plans<P> {
    /// The plan for `schema`; `make` is asked once.
    pub(crate) fn get(
        &mut self,
        schema: &Arc<EventSchema>,
        make: impl FnOnce(&Arc<EventSchema>) -> Result<P, Refusal>,
    ) -> Planned<P> {
        if let Some((last, plan)) = &self.last
            && Arc::ptr_eq(last, schema)
        {
            return Arc::clone(plan);
        }
        if self.known.len() >= PLANS_MAX {
            self.known.clear();
        }
        let plan = self.known.entry(schema.id()).or_insert_with(|| Arc::new(make(schema)));
        self.last = Some((Arc::clone(schema), Arc::clone(plan)));
        Arc::clone(plan)
    }
}

/// How the records of one schema are rewritten.
#[derive(Debug)]
pub(crate) struct Plan<C> {
    /// The schema afterwards.
    pub(crate) schema: Arc<EventSchema>,
    /// What becomes of each field of the key; `None` when the key stays as it is.
    pub(crate) key: Option<Vec<C>>,
    /// What becomes of each field of the row, added ones behind; `None` when rows stay as they are.
    pub(crate) value: Option<Vec<C>>,
}

/// A transform that writes rows anew, field by field.
pub(crate) trait Rewrite: Send + Sync + 'static {
    /// What becomes of a field.
    type Column: Send + Sync;

    /// How records of `schema` are rewritten; `None` when there is nothing to do.
    ///
    /// # Errors
    /// [`Refusal`] when such records cannot be transformed at all.
    fn plan(&self, schema: &Arc<EventSchema>) -> Result<Option<Plan<Self::Column>>, Refusal>;

    /// Whether `record` is left as it is though its schema has a plan.
    fn passes(&self, _record: RecordView<'_>) -> bool {
        false
    }

    /// Writes one field. `value` is absent for an added one. Writes exactly once.
    ///
    /// # Errors
    /// [`Refusal`] when this value cannot be transformed.
    fn write(
        &self,
        column: &Self::Column,
        value: Value<'_>,
        record: RecordView<'_>,
        out: &mut RowWriter<'_>,
    ) -> Result<(), Refusal>;

    /// Changes what is not in the rows.
    fn finish(&self, _record: &mut RecordBuilder<'_>) {}
}

/// A [`Rewrite`] as a transform.
pub(crate) struct Rewriter<R: Rewrite> {
    rewrite: R,
    only: Only,
    plans: Plans<Option<Plan<R::Column>>>,
}

impl<R: Rewrite> Rewriter<R> {
    pub(crate) fn new(rewrite: R, only: Only) -> Self {
        Self { rewrite, only, plans: Plans::default() }
    }

    fn plan(&mut self, schema: &Arc<EventSchema>) -> Planned<Option<Plan<R::Column>>> {
        let (rewrite, only) = (&self.rewrite, &self.only);
        self.plans.get(schema, |schema| if only.matches(schema) { rewrite.plan(schema) } else { Ok(None) })
    }

    fn record(
        &self,
        plan: &Plan<R::Column>,
        from: RecordView<'_>,
        out: &mut BatchBuilder,
    ) -> Result<(), Refusal> {
        let mut record = out.record_like(from, &plan.schema);
        let row = |columns: &[R::Column], row: Row<'_>, out: &mut RowWriter<'_>| {
            for (index, column) in columns.iter().enumerate() {
                let value = if index < row.len() { row.get(index) } else { Value::Absent };
                self.rewrite.write(column, value, from, out)?;
            }
            Ok(())
        };
        match (&plan.key, from.key()) {
            (Some(columns), Some(key)) => record.try_key(|out| row(columns, key, out))?,
            _ => {
                record.copy_key(from);
            }
        }
        match &plan.value {
            None => {
                record.copy_images(from);
            }
            Some(columns) => {
                if let Some(before) = from.before() {
                    record.try_before(|out| row(columns, before, out))?;
                }
                if let Some(after) = from.after() {
                    record.try_after(|out| row(columns, after, out))?;
                }
            }
        }
        record.copy_source(from);
        self.rewrite.finish(&mut record);
        record.finish();
        Ok(())
    }
}

#[async_trait]
impl<R: Rewrite> Transform for Rewriter<R> {
    async fn apply(&mut self, batch: Batch) -> Result<Transformed, ConnectorError> {
        // Most batches of most pipelines have nothing to rewrite, or everything.
        if batch.records().all(|record| matches!(*self.plan(record.schema()), Ok(None))) {
            return Ok(batch.into());
        }
        let mut out = BatchBuilder::new();
        let mut rejected = RejectedRecords::default();
        for record in batch.records() {
            let outcome = match &*self.plan(record.schema()) {
                Ok(Some(plan)) if !self.rewrite.passes(record) => self.record(plan, record, &mut out),
                Ok(_) => {
                    out.push(record);
                    Ok(())
                }
                Err(refusal) => Err(refusal.clone()),
            };
            if let Err(refusal) = outcome {
                rejected.push(record, refusal.into());
            }
        }
        Ok(Transformed { batch: out.build(), rejected })
    }
}

/// `schema` with other rows.
pub(crate) fn with_rows(schema: &EventSchema, key: Option<RowSchema>, value: RowSchema) -> Arc<EventSchema> {
    let mut changed = schema.clone().with_value(Arc::new(value));
    if let Some(key) = key {
        changed = changed.with_key(Some(Arc::new(key)));
    }
    Arc::new(changed)
}

/// A field of another type: what its source called it counts no more.
pub(crate) fn retyped(field: &Field, ty: towpath_api::Type, nullable: bool) -> Field {
    Field { ty, nullable, source_type: None, initial: None, ..field.clone() }
}
