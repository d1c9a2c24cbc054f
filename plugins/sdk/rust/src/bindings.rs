//! Between the generated bindings and what authors see. Compiled for guests only.

use std::cell::RefCell;

use crate::schema::{ColumnId, Computed, Field, Scalar, Schema, SourceBlock, Type};
use crate::{Batch, Config, Element, Error, Output, Rejection, Schemas, Shape, Transform};

#[allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, reason = "generated")]
mod generated {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "transform",
        pub_export_macro: true,
        export_macro_name: "export_transform_world",
        generate_all,
    });
}

pub use generated::*;

use exports::towpath::plugin::{plugin, transforms};
use towpath::plugin::schemas as host;
use towpath::plugin::types;

std::thread_local! {
    static SCHEMAS: RefCell<Schemas> = RefCell::new(Schemas::default());
}

/// Runs with the schemas that this instance knows.
pub(crate) fn with_schemas<R>(run: impl FnOnce(&mut Schemas) -> R) -> R {
    SCHEMAS.with_borrow_mut(run)
}

/// A panic ends the instance; what it says is the only thing that is left of it.
pub(crate) fn tell_panics() {
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|panic| crate::log(crate::Level::Error, &panic.to_string())));
    });
}

/// A component with a transform in it.
pub trait TransformExport {
    /// The transform.
    type Transform: Transform;

    /// Runs with the instance, which is there once it is open.
    fn with<R>(run: impl FnOnce(&mut Option<Self::Transform>) -> R) -> R;
}

/// What the generated traits are implemented for.
pub struct Exported<T>(std::marker::PhantomData<T>);

impl<T: TransformExport> plugin::Guest for Exported<T> {
    fn descriptor() -> types::Description {
        description(T::Transform::descriptor())
    }

    fn config_spec() -> Vec<types::OptionSpec> {
        option_specs(T::Transform::descriptor())
    }

    fn check_config() -> Vec<types::Problem> {
        tell_panics();
        problems(T::Transform::check(&Config::default()))
    }
}

pub(crate) fn description(descriptor: crate::Descriptor) -> types::Description {
    tell_panics();
    let crate::Descriptor { name, version, summary, .. } = descriptor;
    types::Description { name, version, summary }
}

pub(crate) fn option_specs(descriptor: crate::Descriptor) -> Vec<types::OptionSpec> {
    descriptor.options.into_iter().map(option_spec).collect()
}

pub(crate) fn problems(found: Vec<crate::Problem>) -> Vec<types::Problem> {
    let problem = |it: crate::Problem| types::Problem { path: it.path, message: it.message, hint: it.hint };
    found.into_iter().map(problem).collect()
}

pub(crate) fn guarantee(descriptor: &crate::Descriptor) -> types::Guarantee {
    match descriptor.guarantee {
        crate::Guarantee::AtLeastOnce => types::Guarantee::AtLeastOnce,
        crate::Guarantee::ExactlyOnce => types::Guarantee::ExactlyOnce,
    }
}

impl<T: TransformExport> transforms::Guest for Exported<T> {
    fn open() -> Result<(), types::Error> {
        tell_panics();
        let opened = T::Transform::open(&Config::default()).map_err(error)?;
        T::with(|instance| *instance = Some(opened));
        Ok(())
    }

    fn process(bytes: Vec<u8>) -> Result<transforms::Outcome, types::Error> {
        SCHEMAS.with_borrow_mut(|schemas| {
            let Some(batch) = Batch::read(&bytes, schemas) else {
                return Err(error(Error::terminal("PLUGIN_BATCH", "the batch from the host cannot be read")));
            };
            let mut out = Output::new(bytes.len(), schemas);
            T::with(|instance| match instance {
                Some(transform) => transform.process(&batch, &mut out).map_err(error),
                None => Err(not_open()),
            })?;
            let (batch, rejected) = out.finish();
            Ok(transforms::Outcome { batch, rejected: rejections(rejected) })
        })
    }
}

pub(crate) fn not_open() -> types::Error {
    error(Error::terminal("PLUGIN_NOT_OPEN", "the plugin has not been opened"))
}

pub(crate) fn rejections(rejected: Vec<(u32, Rejection)>) -> Vec<types::Rejection> {
    let rejection = |(index, why)| types::Rejection { index, details: details(why) };
    rejected.into_iter().map(rejection).collect()
}

pub(crate) fn details(why: Rejection) -> types::Details {
    types::Details { code: why.code, message: why.message, hint: why.hint, path: why.path }
}

/// A failure that the host tells.
pub(crate) fn error_in(error: types::Error) -> Error {
    let why =
        |it: types::Details| Rejection { code: it.code, message: it.message, hint: it.hint, path: it.path };
    match error {
        types::Error::RetryAfter(retry) => Error::RetryAfter(retry.delay_ms, why(retry.details)),
        types::Error::NeedsOperator(details) => Error::NeedsOperator(why(details)),
        types::Error::Terminal(details) => Error::Terminal(why(details)),
    }
}

pub(crate) fn error(error: Error) -> types::Error {
    match error {
        Error::RetryAfter(delay_ms, why) => {
            types::Error::RetryAfter(types::Retry { delay_ms, details: details(why) })
        }
        Error::NeedsOperator(why) => types::Error::NeedsOperator(details(why)),
        Error::Terminal(why) => types::Error::Terminal(details(why)),
    }
}

fn option_spec(option: crate::OptionSpec) -> types::OptionSpec {
    let element = match option.element {
        Element::Boolean => types::Element::Boolean,
        Element::Integer(min, max) => types::Element::Integer(types::Bounds { min, max }),
        Element::Text => types::Element::Text,
        Element::NonEmptyText => types::Element::NonEmptyText,
        Element::Url(schemes) => types::Element::Url(schemes),
        Element::Path => types::Element::Path,
        Element::Duration => types::Element::Duration,
        Element::ByteSize => types::Element::ByteSize,
        Element::OneOf(words) => {
            let choice = |(name, doc)| types::Choice { name, doc };
            types::Element::OneOf(words.into_iter().map(choice).collect())
        }
        Element::Scalar => types::Element::Scalar,
        Element::Any => types::Element::Any,
    };
    let shape = match option.shape {
        Shape::One => types::Shape::One,
        Shape::Many => types::Shape::Many,
        Shape::ByKey => types::Shape::ByKey,
    };
    let crate::OptionSpec { name, doc, required, default, secret, .. } = option;
    types::OptionSpec { name, doc, shape, element, required, default, secret }
}

/// Each scalar in both spellings.
macro_rules! scalars {
    ($($name:ident)*) => {
        fn scalar_in(scalar: host::Scalar) -> Scalar {
            match scalar { $(host::Scalar::$name => Scalar::$name,)* }
        }

        fn scalar_out(scalar: Scalar) -> host::Scalar {
            match scalar { $(Scalar::$name => host::Scalar::$name,)* }
        }
    };
}
scalars!(Boolean Int16 Int32 Int64 Float32 Float64 Decimal Text Bytes Date Time TimeTz Timestamp TimestampTz
    Interval Uuid Json);

fn field_in(field: host::Field) -> Field {
    let ty = Type { scalar: scalar_in(field.field_type.scalar), dimensions: field.field_type.dimensions };
    let id = field.id.map(|id| ColumnId { table: id.table, column: id.column });
    let host::Field { name, nullable, source_type, renamed_from, initial, .. } = field;
    Field { name, ty, nullable, source_type, renamed_from, initial, id }
}

fn field_out(field: &Field) -> host::Field {
    let field_type = host::FieldType { scalar: scalar_out(field.ty.scalar), dimensions: field.ty.dimensions };
    let id = field.id.map(|id| host::ColumnId { table: id.table, column: id.column });
    let Field { name, nullable, source_type, renamed_from, initial, .. } = field.clone();
    host::Field { name, field_type, nullable, source_type, renamed_from, initial, id }
}

fn fields_out(fields: &[Field]) -> Vec<host::Field> {
    fields.iter().map(field_out).collect()
}

/// The schema of a number.
pub(crate) fn schema(number: u32) -> Option<Schema> {
    let schema = host::get(number)?;
    let fields = |fields: Vec<host::Field>| fields.into_iter().map(field_in).collect::<Vec<_>>();
    let computed = |it: host::Computed| Computed {
        name: it.name,
        source_type: it.source_type,
        expression: it.expression,
    };
    Some(Schema {
        name: schema.name,
        variables: schema.variables,
        key: schema.key.map(fields),
        value: fields(schema.value),
        computed: schema.computed.into_iter().map(computed).collect(),
        source: schema.source.map(|it| SourceBlock { constants: it.constants, fields: fields(it.fields) }),
    })
}

/// A number for a schema.
pub(crate) fn define(schema: &Schema) -> Option<u32> {
    let computed = |it: &Computed| {
        let Computed { name, source_type, expression } = it.clone();
        host::Computed { name, source_type, expression }
    };
    let source = |it: &SourceBlock| host::SourceBlock {
        constants: it.constants.clone(),
        fields: fields_out(&it.fields),
    };
    let made = host::Schema {
        name: schema.name.clone(),
        variables: schema.variables.clone(),
        key: schema.key.as_deref().map(fields_out),
        value: fields_out(&schema.value),
        computed: schema.computed.iter().map(computed).collect(),
        source: schema.source.as_ref().map(source),
    };
    host::define(&made).ok()
}
