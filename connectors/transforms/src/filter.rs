//! `filter`: which records go on.
//!
//! A change event is about a row that some consumer may hold. What counts is the row after the change, or before it
//! for a deletion; and a row that an update brings in or takes out is a row that comes or goes: the update becomes a
//! create, or a delete.

use async_trait::async_trait;
use towpath_api::{
    Batch, BatchBuilder, ConfigProblem, ConfigProblems, ConnectorError, Descriptor, Op, OptionSpec,
    OptionType, RawConfig, RecordView, RejectedRecords, Row, Transform, TransformFactory, Transformed, Value,
};

use super::options::{Only, descriptor};
use super::predicate::{COMPARISONS, Outcome, Predicate};
use super::rewrite::Refusal;

const OPS: &[(&str, &str)] = &[
    ("c", "created"),
    ("r", "read by a snapshot"),
    ("u", "updated"),
    ("d", "deleted, and the tombstone that follows"),
    ("t", "the table was truncated"),
];

/// The type `filter`.
#[derive(Debug)]
pub struct Filter {
    descriptor: Descriptor,
}

impl Default for Filter {
    fn default() -> Self {
        let options = vec![
            OptionSpec::optional(
                "field",
                OptionType::NonEmptyString,
                "The field that decides. Where a row does not have it, it counts as null. Of an update it is the row \
                 afterwards that counts; one that leaves the filter becomes a delete, one that enters it a create.",
            ),
            OptionSpec::with_default(
                "op",
                OptionType::choices(COMPARISONS),
                "eq".into(),
                "How the field is compared with `value`. Order is that of the field's type: numbers as numbers, \
                 timestamps as times. A field that cannot be compared with the value rejects the record.",
            ),
            OptionSpec::optional("value", OptionType::Any, "What it is compared with; a list for `in`."),
            OptionSpec::with_default(
                "keep",
                OptionType::Bool,
                true.into(),
                "Whether records that are like that go on, or (`false`) all others do.",
            ),
            OptionSpec::optional(
                "ops",
                OptionType::list(OptionType::choices(OPS)),
                "Change events with other operations are dropped. Plain records have none, and pass.",
            ),
        ];
        Self { descriptor: descriptor("filter", "Drops records, by a field or by operation", options) }
    }
}

impl TransformFactory for Filter {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn parse(&self, config: &RawConfig) -> Result<Box<dyn Transform>, ConfigProblems> {
        let mut problems = ConfigProblems::default();
        let predicate = Predicate::parse(config).unwrap_or_else(|problem| {
            problems.problems.push(problem);
            None
        });
        let ops = config.values().contains_key("ops").then(|| config.strings("ops"));
        let mut letters = Vec::new();
        for (index, letter) in ops.iter().flatten().enumerate() {
            match Op::from_letter(letter) {
                Some(op) => letters.push(op),
                None => {
                    let problem =
                        ConfigProblem::new(format!("ops[{index}]"), format!("`{letter}` is no operation"));
                    problems.problems.push(problem.with_hint("operations are c, r, u, d and t"));
                }
            }
        }
        if predicate.is_none() && ops.is_none() && problems.problems.is_empty() {
            let problem = ConfigProblem::new("", "`field` or `ops` is needed");
            problems.problems.push(problem.with_hint("`field: level` and `value: error`, or `ops: [c, u]`"));
        }
        problems.into_result()?;
        Ok(Box::new(Filtering {
            predicate,
            keep: config.bool("keep"),
            ops: ops.map(|_| letters),
            only: Only::of(config),
        }))
    }
}

struct Filtering {
    predicate: Option<Predicate>,
    keep: bool,
    ops: Option<Vec<Op>>,
    only: Only,
}

/// What becomes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Pass,
    Drop,
    /// The row enters the filter: for consumers it is created.
    Create,
    /// The row leaves the filter: for consumers it is deleted.
    Delete,
}

impl Filtering {
    fn test(&self, predicate: &Predicate, row: Option<Row<'_>>) -> Result<Outcome, Refusal> {
        let Some(row) = row else { return Ok(Outcome::Unknown) };
        Ok(match (predicate.test(&row)?, self.keep) {
            (Outcome::Yes, false) => Outcome::No,
            (Outcome::No, false) => Outcome::Yes,
            (outcome, _) => outcome,
        })
    }

    fn by_field(&self, record: RecordView<'_>) -> Result<Verdict, Refusal> {
        let Some(predicate) = &self.predicate else { return Ok(Verdict::Pass) };
        let (before, after) = (record.before(), record.after());
        match record.op() {
            Some(Op::Truncate | Op::Tombstone) => Ok(Verdict::Pass),
            // Whether somebody holds the row is not known without the row: to delete nothing does no harm.
            Some(Op::Delete) => Ok(match self.test(predicate, before)? {
                Outcome::No => Verdict::Drop,
                Outcome::Yes | Outcome::Unknown => Verdict::Pass,
            }),
            Some(Op::Update) => {
                let before = self.test(predicate, before)?;
                let after = match self.test(predicate, after)? {
                    // Not told since it has not changed.
                    Outcome::Unknown => before,
                    told => told,
                };
                match (before, after) {
                    (_, Outcome::Unknown) => Err(untold()),
                    (Outcome::No, Outcome::Yes) => Ok(Verdict::Create),
                    (_, Outcome::Yes) => Ok(Verdict::Pass),
                    (Outcome::No, Outcome::No) => Ok(Verdict::Drop),
                    // It was in, or may have been.
                    (_, Outcome::No) if can_delete(record) => Ok(Verdict::Delete),
                    (_, Outcome::No) => Ok(Verdict::Drop),
                }
            }
            _ if after.is_none() => Ok(Verdict::Pass),
            Some(Op::Create | Op::Read) | None => match self.test(predicate, after)? {
                Outcome::Yes => Ok(Verdict::Pass),
                Outcome::No => Ok(Verdict::Drop),
                Outcome::Unknown => Err(untold()),
            },
        }
    }

    fn judge(&self, record: RecordView<'_>) -> Result<Verdict, Refusal> {
        if !self.only.matches(record.schema()) {
            return Ok(Verdict::Pass);
        }
        let verdict = self.by_field(record)?;
        let Some(ops) = &self.ops else { return Ok(verdict) };
        let op = match verdict {
            Verdict::Create => Some(Op::Create),
            Verdict::Delete => Some(Op::Delete),
            Verdict::Pass | Verdict::Drop => match record.op() {
                Some(Op::Tombstone) => Some(Op::Delete),
                op => op,
            },
        };
        Ok(if op.is_none_or(|op| ops.contains(&op)) { verdict } else { Verdict::Drop })
    }
}

fn untold() -> Refusal {
    Refusal::new("FILTER_UNTOLD", "the source did not tell the field that decides")
        .with_hint("set REPLICA IDENTITY FULL on the table, or filter by a field that is always told")
}

/// Whether a deletion would tell which row it means.
fn can_delete(record: RecordView<'_>) -> bool {
    record.key().is_some()
        || record.before().is_some_and(|row| row.values().any(|value| value != Value::Absent))
}

fn copy(out: &mut BatchBuilder, from: RecordView<'_>, op: Op) {
    let mut record = out.record_like(from, from.schema());
    record.op(Some(op)).copy_key(from).copy_source(from);
    let row = if op == Op::Delete { from.before() } else { from.after() };
    if let Some(row) = row {
        let write = |out: &mut towpath_api::RowWriter<'_>| row.values().for_each(|value| out.value(value));
        if op == Op::Delete {
            record.before(write)
        } else {
            record.after(write)
        };
    }
    record.finish();
}

#[async_trait]
impl Transform for Filtering {
    async fn apply(&mut self, mut batch: Batch) -> Result<Transformed, ConnectorError> {
        let mut rejected = RejectedRecords::default();
        let mut verdicts = Vec::with_capacity(batch.len());
        for record in batch.records() {
            verdicts.push(self.judge(record).unwrap_or_else(|refusal| {
                rejected.push(record, refusal.into());
                Verdict::Drop
            }));
        }
        // As a rule nothing changes but how many there are.
        if verdicts.iter().all(|verdict| matches!(verdict, Verdict::Pass | Verdict::Drop)) {
            if verdicts.contains(&Verdict::Drop) {
                batch.retain(|index, _| verdicts.get(index) == Some(&Verdict::Pass));
            }
            return Ok(Transformed { batch, rejected });
        }
        let mut out = BatchBuilder::new();
        for (record, verdict) in batch.records().zip(verdicts) {
            match verdict {
                Verdict::Pass => out.push(record),
                Verdict::Drop => {}
                Verdict::Create => copy(&mut out, record, Op::Create),
                Verdict::Delete => copy(&mut out, record, Op::Delete),
            }
        }
        Ok(Transformed { batch: out.build(), rejected })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{Records, apply, build, change_schema, plain_schema, rejected};
    use serde_json::json;

    fn numbers(batch: &Batch) -> Vec<i64> {
        batch.records().map(|record| record.offset()).collect()
    }

    fn plain() -> Batch {
        let schema = plain_schema();
        let mut records = Records::default();
        for (number, level) in [(1, "info"), (2, "error"), (3, "error"), (4, "warn")] {
            records.plain(&schema, number, level, number as f64 / 2.0);
        }
        records.build()
    }

    #[test]
    fn plain_records_pass_by_their_row() {
        for (options, expected) in [
            (json!({"field": "level", "value": "error"}), vec![2, 3]),
            (json!({"field": "level", "value": "error", "keep": false}), vec![1, 4]),
            (json!({"field": "level", "op": "in", "value": ["info", "warn"]}), vec![1, 4]),
            (json!({"field": "ratio", "op": "gt", "value": 1}), vec![3, 4]),
            (json!({"field": "nobody", "op": "exists"}), vec![]),
            (json!({"field": "nobody", "op": "exists", "keep": false}), vec![1, 2, 3, 4]),
            (json!({"field": "nobody", "value": null}), vec![1, 2, 3, 4]),
            (json!({"ops": ["c"]}), vec![1, 2, 3, 4]),
            (json!({"field": "level", "value": "error", "only": ["other"]}), vec![1, 2, 3, 4]),
        ] {
            let batch = apply(build(&Filter::default(), options.clone()), plain());
            assert_eq!(numbers(&batch), expected, "{options}");
        }
    }

    fn changes() -> Batch {
        let (inside, outside) = (Some("in"), Some("out"));
        let schema = change_schema();
        let mut records = Records::default();
        records.change(&schema, Op::Create, 1, None, Some((1, "1", inside)));
        records.change(&schema, Op::Read, 2, None, Some((2, "1", outside)));
        records.change(&schema, Op::Update, 3, Some((3, "1", inside)), Some((3, "2", inside)));
        records.change(&schema, Op::Update, 4, Some((4, "1", inside)), Some((4, "2", outside)));
        records.change(&schema, Op::Update, 5, Some((5, "1", outside)), Some((5, "2", inside)));
        records.change(&schema, Op::Update, 6, Some((6, "1", outside)), Some((6, "2", outside)));
        records.change(&schema, Op::Update, 7, None, Some((7, "2", outside)));
        records.change(&schema, Op::Update, 8, None, Some((8, "2", inside)));
        records.change(&schema, Op::Delete, 9, Some((9, "1", inside)), None);
        records.change(&schema, Op::Delete, 10, Some((10, "1", outside)), None);
        records.change(&schema, Op::Delete, 11, None, None);
        records.change(&schema, Op::Tombstone, 12, None, None);
        records.change(&schema, Op::Truncate, 13, None, None);
        records.build()
    }

    #[test]
    fn rows_come_and_go_with_the_filter() {
        let batch = apply(build(&Filter::default(), json!({"field": "note", "value": "in"})), changes());
        let events: Vec<_> = batch.records().map(|record| (record.offset(), record.op())).collect();
        assert_eq!(
            events,
            [
                (1, Some(Op::Create)),
                (3, Some(Op::Update)),
                (4, Some(Op::Delete)),
                (5, Some(Op::Create)),
                (7, Some(Op::Delete)),
                (8, Some(Op::Update)),
                (9, Some(Op::Delete)),
                (11, Some(Op::Delete)),
                (12, Some(Op::Tombstone)),
                (13, Some(Op::Truncate)),
            ]
        );
        let left = batch.record(2);
        assert_eq!(left.before().unwrap().get(2), Value::Text("in"));
        assert!(left.after().is_none());
        assert_eq!((left.key().unwrap().get(0), left.position()), (Value::Int(4), Some(&b"p4"[..])));
        assert_eq!(left.source().unwrap().get(0), Value::Int(99));
        let entered = batch.record(3);
        assert!(entered.before().is_none());
        assert_eq!(entered.after().unwrap().get(1), Value::Text("2"));
    }

    #[test]
    fn operations_are_counted_after_that() {
        let options = json!({"field": "note", "value": "in", "ops": ["c", "d"]});
        let batch = apply(build(&Filter::default(), options), changes());
        assert_eq!(numbers(&batch), [1, 4, 5, 7, 9, 11, 12]);
        let batch = apply(build(&Filter::default(), json!({"ops": ["u", "t"]})), changes());
        assert_eq!(numbers(&batch), [3, 4, 5, 6, 7, 8, 13]);
    }

    #[test]
    fn an_untold_field_has_not_changed() {
        let schema = change_schema();
        let toasted = |options| {
            let mut records = Records::default();
            records.toasted(&schema, 1);
            rejected(&mut *build(&Filter::default(), options), records.build())
        };
        let (batch, refused) = toasted(json!({"field": "note", "value": "in"}));
        assert_eq!((batch.len(), refused.1[0].code()), (0, "FILTER_UNTOLD"), "neither image tells it");
        let (batch, refused) = toasted(json!({"field": "id", "op": "ge", "value": 1}));
        assert_eq!((batch.len(), refused.1.len()), (1, 0));
    }

    #[test]
    fn a_comparison_that_makes_no_sense_rejects() {
        let mut filter = build(&Filter::default(), json!({"field": "id", "value": "abc"}));
        let (batch, refused) = rejected(&mut *filter, changes());
        assert_eq!(refused.1.len(), 10);
        assert!(refused.1.iter().all(|error| error.code() == "FILTER_TYPE"));
        assert_eq!(numbers(&batch), [11, 12, 13]);
    }

    #[test]
    fn wrong_options_are_told() {
        let filter = Filter::default();
        for (options, path) in [
            (json!({}), ""),
            (json!({"field": "f"}), "value"),
            (json!({"ops": ["x"]}), "ops[0]"),
            (json!({"value": 1, "ops": ["c"]}), "field"),
        ] {
            let config = RawConfig::with_defaults(&filter.descriptor().options, options).unwrap();
            assert_eq!(filter.parse(&config).err().unwrap().problems[0].path, path);
        }
    }
}
