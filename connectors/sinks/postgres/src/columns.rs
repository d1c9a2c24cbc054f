//! How a field's text becomes a value of its column.

use towpath_api::{Field, Type};
use towpath_sql::pg_type;

use super::catalog;
use super::cells::Codec;

/// A field and the column that it fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The layout's column.
    pub(crate) layout: usize,
    /// The column in the table.
    pub(crate) column: catalog::Column,
    pub(crate) codec: Codec,
    /// A type that the text is cast to first, where the column's own input would refuse it.
    via: Option<&'static str>,
}

impl Target {
    pub(crate) fn new(layout: usize, field: &Field, column: &catalog::Column) -> Self {
        let is_integer = matches!(column.oid, 20 | 21 | 23);
        let codec = match (&field.ty, column.element, column.category) {
            (Type::Array(_) | Type::Json, Some((oid, delimiter)), _) => {
                Codec::Array { element: pg_type::carrier(oid), delimiter }
            }
            // Where an array becomes text, PostgreSQL's sources keep their own form.
            (Type::Array(element), None, category) if category != 'U' && is_postgres(field) => {
                Codec::Array { element: element.as_ref().clone(), delimiter: b',' }
            }
            (Type::Bool, _, 'N') => Codec::BoolAsNumber,
            _ => Codec::Plain,
        };
        let via = match &field.ty {
            Type::Decimal if is_integer => Some("numeric"),
            Type::Float32 | Type::Float64 if is_integer => Some("double precision"),
            _ => None,
        };
        Self { layout, column: column.clone(), codec, via }
    }

    /// Whether the column's input function takes the text as it is, so that `COPY` may write it.
    pub(crate) const fn is_direct(&self) -> bool {
        self.via.is_none()
    }

    /// `text` (an SQL expression) as a value of the column's base type.
    pub(crate) fn cast(&self, text: &str) -> String {
        match self.via {
            None => format!("{text}::{}", self.column.cast_type),
            Some(via) => format!("{text}::{via}::{}", self.column.cast_type),
        }
    }

    /// `text` as the column would give it back, modifiers included.
    pub(crate) fn cast_full(&self, text: &str) -> String {
        format!("({})::{}", self.cast(text), self.column.full_type)
    }
}

fn is_postgres(field: &Field) -> bool {
    field.source_type.as_deref().and_then(pg_type::formatted).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(oid: u32, cast_type: &str, category: char, element: Option<(u32, u8)>) -> catalog::Column {
        catalog::Column {
            name: "c".into(),
            full_type: cast_type.into(),
            cast_type: cast_type.into(),
            oid,
            category,
            element,
            generated: false,
            identity_always: false,
            must_be_given: false,
            computed_by_us: None,
        }
    }

    #[test]
    fn decimals_reach_integer_columns_through_numeric() {
        let target = Target::new(0, &Field::nullable("c", Type::Decimal), &column(20, "bigint", 'N', None));
        assert_eq!(target.cast("s.c0"), "s.c0::numeric::bigint");
        assert!(!target.is_direct());
        let target =
            Target::new(0, &Field::nullable("c", Type::Decimal), &column(1700, "numeric", 'N', None));
        assert_eq!(target.cast("s.c0"), "s.c0::numeric");
        assert!(target.is_direct());
    }

    #[test]
    fn arrays_are_literals_where_the_column_is_no_json() {
        let field = Field::nullable("c", Type::Array(Box::new(Type::Bool)));
        let codec = |field: &Field, column| Target::new(0, field, &column).codec;
        assert_eq!(codec(&field, column(3802, "jsonb", 'U', None)), Codec::Plain);
        assert_eq!(codec(&field, column(25, "text", 'S', None)), Codec::Plain);
        let ours = Field { source_type: Some("postgres:boolean[]".into()), ..field.clone() };
        assert!(matches!(codec(&ours, column(25, "text", 'S', None)), Codec::Array { .. }));
        assert_eq!(codec(&ours, column(3802, "jsonb", 'U', None)), Codec::Plain);
        let boxes = Codec::Array { element: Type::String, delimiter: b';' };
        assert_eq!(codec(&field, column(1020, "box[]", 'A', Some((603, b';')))), boxes);
        let flags = Field::nullable("c", Type::Bool);
        assert_eq!(codec(&flags, column(23, "integer", 'N', None)), Codec::BoolAsNumber);
    }
}
