//! `mask`: what nobody downstream is to see.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use towpath_api::{
    ConfigProblem, ConfigProblems, Descriptor, EventSchema, Field, OptionSpec, OptionType, RawConfig,
    RecordView, RowSchema, RowWriter, Secret, Transform, TransformFactory, Type, Value,
};

use super::convert::{Converted, convert};
use super::options::{Constant, Only, descriptor, field_list};
use super::rewrite::{Plan, Refusal, Rewrite, Rewriter, retyped, with_rows};
use super::text;

/// The type `mask`.
#[derive(Debug)]
pub struct Mask {
    descriptor: Descriptor,
}

impl Default for Mask {
    fn default() -> Self {
        let options = vec![
            OptionSpec::required(
                "fields",
                OptionType::list(OptionType::NonEmptyString),
                "The fields to mask, wherever they stand: in the key, before and after a change. A field of the key \
                 takes `with: hash` only, since a constant would make one row of all.",
            ),
            OptionSpec::with_default(
                "with",
                OptionType::Scalar,
                serde_json::Value::Null,
                "`null` (the field becomes nullable); `hash`, the SHA-256 of the value as 64 hexadecimal digits (equal \
                 values stay equal, whatever the field's type it becomes text); or a constant to put in place, where it \
                 fits the field's type — elsewhere null. What is null stays null, what is absent absent.",
            ),
            OptionSpec::optional(
                "salt",
                OptionType::NonEmptyString,
                "A key for `hash` (HMAC-SHA-256): without it whoever can guess a value can find its hash.",
            )
            .secret(),
        ];
        Self { descriptor: descriptor("mask", "Hides what fields hold", options) }
    }
}

impl TransformFactory for Mask {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn parse(&self, config: &RawConfig) -> Result<Box<dyn Transform>, ConfigProblems> {
        let mut problems = ConfigProblems::default();
        let fields = field_list(config, "fields", &mut problems.problems);
        let salt = config.secret("salt");
        let with = match config.values().get("with").map(Constant::of) {
            None | Some(Some(Constant::Null)) => With::Null,
            Some(Some(Constant::Text(text))) if text == "hash" => With::Hash,
            Some(Some(constant)) => With::Constant(constant),
            Some(None) => {
                problems
                    .problems
                    .push(ConfigProblem::new("with", "a text, a number, true, false or null is needed"));
                With::Null
            }
        };
        if salt.is_some() && !matches!(with, With::Hash) {
            let problem = ConfigProblem::new("salt", "only hashes have a salt");
            problems.problems.push(problem.with_hint("add `with: hash`, or leave it out"));
        }
        problems.into_result()?;
        Ok(Box::new(Rewriter::new(Masks { fields, with, salt }, Only::of(config))))
    }
}

/// What a masked field holds.
#[derive(Debug)]
enum With {
    Null,
    Hash,
    Constant(Constant),
}

struct Masks {
    fields: Vec<String>,
    with: With,
    salt: Option<Secret>,
}

/// What becomes of a field.
enum Column {
    Copy,
    Null,
    Hash,
    Constant(Converted<'static>),
}

/// The constant as a value of `ty`, if it fits.
fn fitting(constant: &Constant, ty: &Type) -> Option<Converted<'static>> {
    let value = match constant {
        Constant::Null => return None,
        Constant::Bool(value) => Value::Bool(*value),
        Constant::Int(value) => Value::Int(*value),
        Constant::Float(value) => Value::Float64(*value),
        Constant::Text(text) => Value::Text(text),
    };
    // Text is for text: `"5"` masks no number. A number is for numbers.
    let same_kind = match constant {
        Constant::Text(_) => ty.is_text() && !matches!(ty, Type::Decimal) || *ty == Type::Bytes,
        Constant::Bool(_) => *ty == Type::Bool,
        _ => !ty.is_text() && !matches!(ty, Type::Bool | Type::Bytes) || *ty == Type::Decimal,
    };
    let converted = convert(value, ty).filter(|_| same_kind)?;
    Some(match converted {
        Converted::Text(text) => Converted::Text(text.into_owned().into()),
        Converted::Bytes(bytes) => Converted::Bytes(bytes.into_owned().into()),
        Converted::Null => Converted::Null,
        Converted::Absent => Converted::Absent,
        Converted::Bool(value) => Converted::Bool(value),
        Converted::Int(value) => Converted::Int(value),
        Converted::Float32(value) => Converted::Float32(value),
        Converted::Float64(value) => Converted::Float64(value),
    })
}

impl Masks {
    fn column(&self, field: &Field) -> (Field, Column) {
        if !self.fields.contains(&field.name) {
            return (field.clone(), Column::Copy);
        }
        let null = || (retyped(field, field.ty.clone(), true), Column::Null);
        match &self.with {
            With::Null => null(),
            With::Hash => (retyped(field, Type::String, field.nullable), Column::Hash),
            With::Constant(constant) => match fitting(constant, &field.ty) {
                // What rows held before the column was added is hidden, too.
                Some(value) => (Field { initial: None, ..field.clone() }, Column::Constant(value)),
                None => null(),
            },
        }
    }

    fn rows(&self, rows: &RowSchema) -> (RowSchema, Vec<Column>) {
        let (fields, columns) = rows.fields.iter().map(|field| self.column(field)).unzip();
        (RowSchema::new(fields), columns)
    }

    fn touches(&self, rows: &RowSchema) -> bool {
        rows.fields.iter().any(|field| self.fields.contains(&field.name))
    }

    /// The hash of a value; the same for equal values, wherever they stand.
    fn hash(&self, value: Value<'_>) -> Option<String> {
        let digest = match (value, text::of(value)) {
            (Value::Bytes(bytes), _) => self.digest(bytes),
            (_, Some(text)) => self.digest(text.as_bytes()),
            _ => return None,
        };
        Some(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn digest(&self, bytes: &[u8]) -> [u8; 32] {
        match &self.salt {
            None => Sha256::digest(bytes).into(),
            Some(salt) => hmac(salt.expose().as_bytes(), bytes),
        }
    }
}

/// HMAC-SHA-256 (RFC 2104).
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().into()
}

impl Rewrite for Masks {
    type Column = Column;

    fn plan(&self, schema: &Arc<EventSchema>) -> Result<Option<Plan<Column>>, Refusal> {
        let key = schema.key().filter(|key| self.touches(key));
        if key.is_none() && !self.touches(schema.value()) {
            return Ok(None);
        }
        let hashes = matches!(self.with, With::Hash);
        let in_key = key.and_then(|key| key.fields.iter().find(|field| self.fields.contains(&field.name)));
        if let (Some(field), false) = (in_key, hashes) {
            let message = format!("`{}` is part of the key of {}", field.name, schema.name());
            return Err(
                Refusal::new("MASK_KEY", message).with_hint("mask it `with: hash`: equal keys stay equal")
            );
        }
        let (value, value_columns) = self.rows(schema.value());
        let (key, key_columns) = key.map(|key| self.rows(key)).unzip();
        Ok(Some(Plan { schema: with_rows(schema, key, value), key: key_columns, value: Some(value_columns) }))
    }

    fn write(
        &self,
        column: &Column,
        value: Value<'_>,
        _record: RecordView<'_>,
        out: &mut RowWriter<'_>,
    ) -> Result<(), Refusal> {
        match (column, value) {
            (_, Value::Absent) => out.absent(),
            (_, Value::Null) | (Column::Null, _) => out.null(),
            (Column::Copy, value) => out.value(value),
            (Column::Constant(constant), _) => constant.write(out),
            (Column::Hash, value) => match self.hash(value) {
                Some(hash) => out.text(&hash),
                None => out.null(),
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{Records, apply, build, change_schema, plain_schema, rejected};
    use serde_json::json;
    use towpath_api::{Batch, Op};

    fn batch() -> Batch {
        let schema = change_schema();
        let mut records = Records::default();
        records.change(&schema, Op::Update, 7, Some((7, "1.50", Some("secret"))), Some((7, "2", None)));
        records.toasted(&schema, 8);
        records.build()
    }

    #[test]
    fn null_hides_both_images_and_leaves_null_and_absent() {
        let batch = apply(build(&Mask::default(), json!({"fields": ["price", "note"]})), batch());
        let record = batch.record(0);
        assert_eq!(record.before().unwrap().get(1), Value::Null);
        assert_eq!(record.before().unwrap().get(2), Value::Null);
        assert_eq!(record.after().unwrap().get(1), Value::Null);
        assert_eq!(record.after().unwrap().get(0), Value::Int(7));
        assert_eq!(batch.record(1).after().unwrap().get(2), Value::Absent);
        let price = &record.schema().value().fields[1];
        assert_eq!((&price.ty, price.nullable, &price.source_type), (&Type::Decimal, true, &None));
    }

    #[test]
    fn constants_mask_what_they_fit() {
        for (with, price, note) in [
            (json!("***"), Value::Null, Value::Text("***")),
            (json!(0), Value::Text("0"), Value::Null),
            (json!(0.5), Value::Text("0.5"), Value::Null),
            (json!(true), Value::Null, Value::Null),
        ] {
            let options = json!({"fields": ["price", "note"], "with": with});
            let batch = apply(build(&Mask::default(), options), batch());
            let before = batch.record(0).before().unwrap();
            assert_eq!((before.get(1), before.get(2)), (price, note), "{with}");
            assert_eq!(batch.record(0).after().unwrap().get(2), Value::Null, "null stays null");
        }
    }

    #[test]
    fn a_field_that_cannot_be_null_becomes_nullable() {
        let mut records = Records::default();
        records.plain(&plain_schema(), 5, "error", 0.5);
        let batch =
            apply(build(&Mask::default(), json!({"fields": ["number"], "with": "x"})), records.build());
        assert_eq!(batch.record(0).after().unwrap().get(0), Value::Null);
        assert!(batch.record(0).schema().value().fields[0].nullable);
    }

    #[test]
    fn hashes_are_equal_where_values_are() {
        let mask = || build(&Mask::default(), json!({"fields": ["id", "note"], "with": "hash"}));
        let batch = apply(mask(), batch());
        let record = batch.record(0);
        // printf 7 | sha256sum
        let seven = Value::Text("7902699be42c8a8e46fbbb4501726517e86b22c56a189f7625a6da49081b2451");
        assert_eq!(record.key().unwrap().get(0), seven);
        assert_eq!(record.before().unwrap().get(0), seven);
        assert_eq!(record.after().unwrap().get(0), seven);
        assert_eq!(record.after().unwrap().get(2), Value::Null);
        assert_eq!(record.schema().key().unwrap().fields[0].ty, Type::String);
        assert!(!record.schema().value().fields[0].nullable);
        assert_eq!(batch.record(1).after().unwrap().get(2), Value::Absent);
    }

    #[test]
    fn salted_hashes_are_hmacs() {
        // RFC 4231, test cases 2 and 6.
        let hex = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(
            hex(hmac(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
        let with = |salt: &str| {
            let options = json!({"fields": ["note"], "with": "hash", "salt": salt});
            let batch = apply(build(&Mask::default(), options), batch());
            let Value::Text(hash) = batch.record(0).before().unwrap().get(2) else { panic!("no hash") };
            hash.to_owned()
        };
        assert_ne!(with("a"), with("b"));
        assert_eq!(with("a"), with("a"));
    }

    #[test]
    fn a_key_is_not_masked_away() {
        let mut mask = build(&Mask::default(), json!({"fields": ["id"]}));
        let (batch, refused) = rejected(&mut *mask, batch());
        assert_eq!((batch.len(), refused.1.len()), (0, 2));
        assert_eq!(refused.1[0].code(), "MASK_KEY");
        assert!(refused.1[0].hint().unwrap().contains("hash"));
    }

    #[test]
    fn only_the_named_tables_are_masked() {
        let options = json!({"fields": ["note"], "only": ["public.customers", "other.*"]});
        let batch = apply(build(&Mask::default(), options), batch());
        assert_eq!(batch.record(0).before().unwrap().get(2), Value::Text("secret"));
        let options = json!({"fields": ["note"], "only": ["public.*"]});
        let batch = apply(build(&Mask::default(), options), self::batch());
        assert_eq!(batch.record(0).before().unwrap().get(2), Value::Null);
    }

    #[test]
    fn wrong_options_are_told() {
        let mask = Mask::default();
        for (options, path) in [
            (json!({"fields": []}), "fields"),
            (json!({"fields": ["a", "a"]}), "fields[1]"),
            (json!({"fields": ["a"], "with": [1]}), "with"),
            (json!({"fields": ["a"], "salt": "s"}), "salt"),
        ] {
            let config = RawConfig::with_defaults(&mask.descriptor().options, options).unwrap();
            assert_eq!(mask.parse(&config).err().unwrap().problems[0].path, path);
        }
        assert!(mask.descriptor().options.get("salt").unwrap().secret);
    }
}
