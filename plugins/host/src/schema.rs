//! Schemas across the border, and the numbers by which an instance knows them.

use std::collections::HashMap;
use std::sync::Arc;

use towpath_api::{ColumnId, Computed, EventSchema, Field, RowSchema, SchemaId, SourceBlock, Type};
use towpath_types::limits::{
    PLUGIN_SCHEMA_BYTES_MAX, PLUGIN_SCHEMAS_BYTES_MAX, PLUGIN_SCHEMAS_MAX, SCHEMA_FIELDS_MAX,
};

use super::bindings::towpath::plugin::schemas as wit;

/// Dimensions of an array (PostgreSQL's own bound).
const DIMENSIONS_MAX: u8 = 6;

/// The schemas of one instance.
#[derive(Default)]
pub(crate) struct SchemaTable {
    schemas: Vec<Arc<EventSchema>>,
    numbers: HashMap<SchemaId, u32>,
    /// Bytes of the schemas that the guest has made.
    defined_bytes: usize,
}

impl SchemaTable {
    /// Whether so many more could be too many: then the instance is replaced by a new one.
    pub(crate) fn is_full_for(&self, more: usize) -> bool {
        self.schemas.len() + more > PLUGIN_SCHEMAS_MAX
    }

    pub(crate) fn get(&self, number: u32) -> Option<Arc<EventSchema>> {
        self.schemas.get(number as usize).cloned()
    }

    /// The number of a schema, a new one if need be.
    pub(crate) fn number(&mut self, schema: &Arc<EventSchema>) -> u32 {
        let next = self.schemas.len() as u32;
        let number = *self.numbers.entry(schema.id()).or_insert(next);
        if number == next {
            self.schemas.push(Arc::clone(schema));
        }
        number
    }

    /// A number for a schema that the guest has made (R10: neither too many nor too large, one by one or together).
    pub(crate) fn define(&mut self, schema: wit::Schema) -> Result<u32, wit::Refusal> {
        let bytes = bytes_of(&schema);
        if bytes > PLUGIN_SCHEMA_BYTES_MAX {
            return Err(wit::Refusal::TooLarge);
        }
        let schema = from_wit(schema)?;
        if !self.numbers.contains_key(&schema.id()) {
            let defined_bytes = self.defined_bytes + bytes;
            if self.is_full_for(1) || defined_bytes > PLUGIN_SCHEMAS_BYTES_MAX {
                return Err(wit::Refusal::TooMany);
            }
            self.defined_bytes = defined_bytes;
        }
        Ok(self.number(&Arc::new(schema)))
    }
}

/// Each scalar in both spellings.
macro_rules! scalars {
    ($($ours:ident $theirs:ident,)*) => {
        /// The innermost element and the dimensions around it.
        fn type_out(ty: &Type) -> (wit::Scalar, u8) {
            match ty {
                $(Type::$ours => (wit::Scalar::$theirs, 0),)*
                Type::Array(element) => {
                    let (scalar, dimensions) = type_out(element);
                    (scalar, dimensions.saturating_add(1))
                }
            }
        }

        fn scalar_in(scalar: wit::Scalar) -> Type {
            match scalar { $(wit::Scalar::$theirs => Type::$ours,)* }
        }
    };
}
scalars!(
    Bool Boolean, Int16 Int16, Int32 Int32, Int64 Int64, Float32 Float32, Float64 Float64, Decimal Decimal,
    String Text, Bytes Bytes, Date Date, Time Time, TimeTz TimeTz, Timestamp Timestamp,
    TimestampTz TimestampTz, Interval Interval, Uuid Uuid, Json Json,
);

fn field_out(field: &Field) -> wit::Field {
    let (scalar, dimensions) = type_out(&field.ty);
    let Field { name, nullable, source_type, renamed_from, initial, .. } = field.clone();
    wit::Field {
        name,
        field_type: wit::FieldType { scalar, dimensions },
        nullable,
        source_type,
        renamed_from,
        initial,
        id: field.id.map(|id| wit::ColumnId { table: id.table, column: id.column }),
    }
}

fn rows_out(rows: &RowSchema) -> Vec<wit::Field> {
    rows.fields.iter().map(field_out).collect()
}

/// A schema as a guest sees it.
pub(crate) fn to_wit(schema: &EventSchema) -> wit::Schema {
    let computed = |it: &Computed| wit::Computed {
        name: it.name.clone(),
        source_type: it.source_type.clone(),
        expression: it.expression.clone(),
    };
    let source = |it: &Arc<SourceBlock>| wit::SourceBlock {
        constants: it.constants.clone(),
        fields: rows_out(&it.fields),
    };
    wit::Schema {
        name: schema.name().to_owned(),
        variables: schema.variables().clone().into_iter().collect(),
        key: schema.key().map(|key| rows_out(key)),
        value: rows_out(schema.value()),
        computed: schema.computed().iter().map(computed).collect(),
        source: schema.source().map(source),
    }
}

fn field_in(field: wit::Field) -> Result<Field, wit::Refusal> {
    if field.field_type.dimensions > DIMENSIONS_MAX {
        return Err(wit::Refusal::TooLarge);
    }
    let array = |element: Type, _| Type::Array(Box::new(element));
    let ty = (0..field.field_type.dimensions).fold(scalar_in(field.field_type.scalar), array);
    let id = field.id.map(|id| ColumnId { table: id.table, column: id.column });
    let wit::Field { name, nullable, source_type, renamed_from, initial, .. } = field;
    Ok(Field { name, ty, nullable, source_type, renamed_from, initial, id })
}

fn rows_in(fields: Vec<wit::Field>) -> Result<Arc<RowSchema>, wit::Refusal> {
    if fields.len() > SCHEMA_FIELDS_MAX {
        return Err(wit::Refusal::TooLarge);
    }
    Ok(Arc::new(RowSchema::new(fields.into_iter().map(field_in).collect::<Result<_, _>>()?)))
}

/// What a schema takes, about.
fn bytes_of(schema: &wit::Schema) -> usize {
    let text = |it: &Option<String>| it.as_ref().map_or(0, String::len);
    let field = |it: &wit::Field| {
        size_of::<Field>()
            + it.name.len()
            + text(&it.source_type)
            + text(&it.renamed_from)
            + text(&it.initial)
    };
    let pair = |(name, value): &(String, String)| size_of::<(String, String)>() + name.len() + value.len();
    let computed = |it: &wit::Computed| {
        size_of::<Computed>() + it.name.len() + it.source_type.len() + it.expression.len()
    };
    let source = schema.source.iter();
    let fields = schema.value.iter().chain(schema.key.iter().flatten());
    let fields = fields.chain(source.clone().flat_map(|it| &it.fields)).map(field);
    let pairs = schema.variables.iter().chain(source.flat_map(|it| &it.constants)).map(pair);
    schema.name.len() + fields.chain(pairs).chain(schema.computed.iter().map(computed)).sum::<usize>()
}

/// A schema that a guest has made.
fn from_wit(schema: wit::Schema) -> Result<EventSchema, wit::Refusal> {
    if schema.computed.len().max(schema.variables.len()) > SCHEMA_FIELDS_MAX {
        return Err(wit::Refusal::TooLarge);
    }
    let source = |it: wit::SourceBlock| -> Result<Arc<SourceBlock>, wit::Refusal> {
        let fields = rows_in(it.fields)?;
        Ok(Arc::new(SourceBlock { constants: it.constants, fields: (*fields).clone() }))
    };
    let computed = |it: wit::Computed| Computed {
        name: it.name,
        source_type: it.source_type,
        expression: it.expression,
    };
    Ok(EventSchema::new(schema.name, rows_in(schema.value)?)
        .with_key(schema.key.map(rows_in).transpose()?)
        .with_source(schema.source.map(source).transpose()?)
        .with_variables(schema.variables.into_iter().collect())
        .with_computed(schema.computed.into_iter().map(computed).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_comes_back_as_it_went_under_the_same_number() {
        let batch = towpath_api::conformance::records();
        let mut table = SchemaTable::default();
        for record in batch.records() {
            let number = table.number(record.schema());
            let back = from_wit(to_wit(record.schema())).unwrap();
            assert_eq!(back, **record.schema());
            assert_eq!(table.define(to_wit(&back)), Ok(number));
        }
        assert_eq!(table.schemas.len(), 3);
        assert!(table.get(3).is_none());
    }

    #[test]
    fn schemas_are_bounded() {
        let mut schema = to_wit(towpath_api::conformance::records().record(0).schema());
        schema.value[0].field_type.dimensions = 7;
        assert_eq!(from_wit(schema.clone()), Err(wit::Refusal::TooLarge));
        schema.value[0].field_type.dimensions = 0;
        let mut table = SchemaTable::default();
        for number in 0..PLUGIN_SCHEMAS_MAX as u32 {
            schema.name = number.to_string();
            assert_eq!(table.define(schema.clone()), Ok(number));
        }
        assert_eq!(table.define(schema.clone()), Ok(PLUGIN_SCHEMAS_MAX as u32 - 1));
        schema.name = "one too many".to_owned();
        assert_eq!(table.define(schema), Err(wit::Refusal::TooMany));
    }

    #[test]
    fn bytes_of_schemas_are_bounded() {
        let mut schema = to_wit(towpath_api::conformance::records().record(0).schema());
        let mut table = SchemaTable::default();
        schema.variables.push(("v".to_owned(), "x".repeat(PLUGIN_SCHEMA_BYTES_MAX)));
        assert_eq!(table.define(schema.clone()), Err(wit::Refusal::TooLarge));
        schema.variables.pop();
        schema.name = "x".repeat(PLUGIN_SCHEMA_BYTES_MAX / 2);
        let mut defined = 0;
        while table.define(schema.clone()).is_ok() {
            defined += 1;
            schema.variables = vec![("v".to_owned(), defined.to_string())];
        }
        assert_eq!(table.define(schema), Err(wit::Refusal::TooMany));
        assert_eq!(defined, PLUGIN_SCHEMAS_BYTES_MAX / (PLUGIN_SCHEMA_BYTES_MAX / 2) - 1);
    }
}
