//! Records for the tests, and a way to run a transform.

use std::sync::Arc;

use serde_json::Value as Json;
use towpath_api::{
    Batch, BatchBuilder, ConnectorError, EventSchema, Field, Op, RawConfig, RowSchema, RowWriter,
    SourceBlock, Transform, TransformFactory, Type,
};

/// A row of [`change_schema`].
pub(crate) type Row<'a> = (i64, &'a str, Option<&'a str>);

/// `public.orders`: id, price, note; keyed by id, with a source block.
pub(crate) fn change_schema() -> Arc<EventSchema> {
    let price = Field {
        source_type: Some("postgres:numeric(10,2)".into()),
        ..Field::nullable("price", Type::Decimal)
    };
    let value = RowSchema::new(vec![
        Field::required("id", Type::Int64),
        price,
        Field::nullable("note", Type::String),
    ]);
    let source = SourceBlock {
        constants: vec![("db".into(), "shop".into()), ("table".into(), "orders".into())],
        fields: RowSchema::new(vec![
            Field::required("lsn", Type::Int64),
            Field::required("ts_ms", Type::Int64),
        ]),
    };
    let variables =
        [("schema", "public"), ("table", "or.ders")].map(|(name, value)| (name.into(), value.into()));
    Arc::new(
        EventSchema::new("public.orders", Arc::new(value))
            .with_key(Some(Arc::new(RowSchema::new(vec![Field::required("id", Type::Int64)]))))
            .with_source(Some(Arc::new(source)))
            .with_variables(variables.into()),
    )
}

/// `logs`: number, level, ratio; without key or source.
pub(crate) fn plain_schema() -> Arc<EventSchema> {
    Arc::new(EventSchema::new(
        "logs",
        Arc::new(RowSchema::new(vec![
            Field::required("number", Type::Int32),
            Field::nullable("level", Type::String),
            Field::nullable("ratio", Type::Float64),
        ])),
    ))
}

fn write(row: Row<'_>) -> impl FnOnce(&mut RowWriter<'_>) {
    move |out| {
        out.int(row.0);
        out.text(row.1);
        match row.2 {
            Some(note) => out.text(note),
            None => out.null(),
        }
    }
}

/// Builds a batch.
#[derive(Default)]
pub(crate) struct Records {
    builder: BatchBuilder,
}

impl Records {
    /// A change event with its key; its offset is the key.
    pub(crate) fn change(
        &mut self,
        schema: &Arc<EventSchema>,
        op: Op,
        key: i64,
        before: Option<Row<'_>>,
        after: Option<Row<'_>>,
    ) {
        let mut record = self.builder.record(schema);
        let position = format!("p{key}");
        record.op(Some(op)).timestamp_ms(1_700_000_000_000).offset(key).position(3, position.as_bytes());
        record.header("h", Some(b"v"));
        if op != Op::Truncate {
            record.key(|row| row.int(key));
        }
        if let Some(before) = before {
            record.before(write(before));
        }
        if let Some(after) = after {
            record.after(write(after));
        }
        record.source(|row| {
            row.int(99);
            row.int(1_600);
        });
        record.finish();
    }

    /// An update whose note is not told, and whose before image has the key alone.
    pub(crate) fn toasted(&mut self, schema: &Arc<EventSchema>, key: i64) {
        let mut record = self.builder.record(schema);
        record.op(Some(Op::Update)).offset(key).key(|row| row.int(key)).before(|row| row.int(key)).after(
            |row| {
                row.int(key);
                row.text("5");
                row.absent();
            },
        );
        record.finish();
    }

    /// A plain record.
    pub(crate) fn plain(&mut self, schema: &Arc<EventSchema>, number: i64, level: &str, ratio: f64) {
        let mut record = self.builder.record(schema);
        record.offset(number).after(|row| {
            row.int(number);
            row.text(level);
            row.float64(ratio);
        });
        record.finish();
    }

    pub(crate) fn build(self) -> Batch {
        self.builder.build()
    }
}

/// A transform out of options.
pub(crate) fn build(factory: &dyn TransformFactory, options: Json) -> Box<dyn Transform> {
    let config = RawConfig::with_defaults(&factory.descriptor().options, options).unwrap();
    factory.parse(&config).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Applies a transform that rejects nothing.
pub(crate) fn apply(mut transform: Box<dyn Transform>, batch: Batch) -> Batch {
    let (batch, refused) = rejected(&mut *transform, batch);
    assert!(refused.1.is_empty(), "{:?}", refused.1);
    batch
}

/// Applies a transform: what goes on, and what is rejected.
pub(crate) fn rejected(transform: &mut dyn Transform, batch: Batch) -> (Batch, (Batch, Vec<ConnectorError>)) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let transformed = runtime.block_on(transform.apply(batch)).unwrap();
    (transformed.batch, transformed.rejected.into_parts())
}
