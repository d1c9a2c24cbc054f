//! A transform whose cost is measured: it reads and writes every field of every record, and puts a text in the place of
//! one if it is told to, as the built-in `mask` does.

use towpath_sdk::{Batch, Config, Descriptor, Element, Error, OptionSpec, Output, Transform, Value};

struct Measured {
    field: Option<String>,
    with: String,
}

impl Transform for Measured {
    fn descriptor() -> Descriptor {
        Descriptor::new("measured", "0.1.0", "Reads and writes every field")
            .option(OptionSpec::optional("field", Element::NonEmptyText, "The field to mask."))
            .option(OptionSpec::optional("with", Element::Text, "What is put in its place."))
    }

    fn open(config: &Config) -> Result<Self, Error> {
        Ok(Self { field: config.text("field"), with: config.text("with").unwrap_or_default() })
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Output<'_>) -> Result<(), Error> {
        for record in batch.records() {
            let Some(after) = record.after() else {
                out.keep(record);
                continue;
            };
            let masked =
                self.field.as_ref().and_then(|name| after.fields().iter().position(|it| it.name == *name));
            out.rewrite(record)
                .after(|row| {
                    for (index, value) in after.values().enumerate() {
                        let masked = masked == Some(index) && value != Value::Null && value != Value::Absent;
                        row.value(if masked { Value::Text(&self.with) } else { value });
                    }
                })
                .finish();
        }
        Ok(())
    }
}

towpath_sdk::export_transform!(Measured);
