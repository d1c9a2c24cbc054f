//! Which tables are copied, and from where; pure.

use serde::{Deserialize, Serialize};

use super::capture::Captured;

/// The stored offset of a table's copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableOffset {
    pub(crate) v: u8,
    /// The outbox id at which the copy began: changes up to it are in the copied rows.
    pub(crate) from: i64,
    /// Whether every row has been copied.
    pub(crate) done: bool,
    /// Where to go on: the last copied row's place, as SQL literals.
    pub(crate) after: Option<String>,
    /// How often the copy has begun again: another lane each time.
    #[serde(default)]
    pub(crate) attempt: u32,
    /// The definition of the table that was copied, or that nothing had to be copied for.
    #[serde(default)]
    pub(crate) epoch: i64,
    /// Whether the copy begins with a truncate.
    #[serde(default)]
    pub(crate) whole: bool,
}

/// How a copy begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Start {
    /// For the first time.
    Fresh,
    /// Where it was.
    Resume(TableOffset),
    /// The table has other columns: its rows are read once more. Changes go on where the outbox has been read to, so
    /// that no delete is passed over.
    Rows {
        /// The number of the copy.
        attempt: u32,
    },
    /// What was written is forgotten, and everything comes again.
    Whole {
        /// The number of the copy.
        attempt: u32,
    },
}

/// What has to be done for a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    None,
    /// Nothing but to remember its new definition.
    Adopt,
    /// A copy.
    Copy(Start),
}

/// A copy that is to be made.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) captured: Captured,
    pub(crate) start: Start,
    /// The outbox is read to here first: what older triggers wrote must not come behind rows with newer columns.
    pub(crate) after_id: i64,
}

/// What the newest definition of a table asks for; `gap` says whether changes may have been missed since the definition
/// of the last copy.
pub(crate) fn step(newest: &Captured, copy: Option<&TableOffset>, gap: bool) -> Step {
    let Some(copy) = copy else { return Step::Copy(Start::Fresh) };
    let attempt = copy.attempt.saturating_add(1);
    let (has_key, same) = (newest.table.has_key(), copy.epoch == newest.epoch);
    match (copy.done, has_key) {
        (true, _) if same => Step::None,
        (true, _) if gap => Step::Copy(Start::Whole { attempt }),
        // Rows changed between the ALTER TABLE and our new triggers were written without the new column.
        (true, true) => Step::Copy(Start::Rows { attempt }),
        // Without a key nobody could tell which rows they replace.
        (true, false) => Step::Adopt,
        // The truncate comes again, and no row that was written behind the first one may be taken for written behind it.
        (false, true) if same && copy.whole && copy.after.is_none() => Step::Copy(Start::Whole { attempt }),
        (false, true) if same => Step::Copy(Start::Resume(copy.clone())),
        (false, true) if !gap && !copy.whole => Step::Copy(Start::Rows { attempt }),
        // A table without a key cannot take a row twice.
        (false, _) => Step::Copy(Start::Whole { attempt }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Column, Table};

    fn captured(epoch: i64, key: i64) -> Captured {
        let column = Column { name: "a".into(), declared: "INT".into(), not_null: false, key };
        Captured { epoch, table: Table::new("p", "d", "t", vec![column], true), gap: false }
    }

    fn offset(epoch: i64, done: bool, whole: bool) -> TableOffset {
        TableOffset { v: 1, from: 3, done, after: Some("7".into()), attempt: 4, epoch, whole }
    }

    #[test]
    fn every_case_is_decided() {
        let (keyed, keyless) = (captured(2, 1), captured(2, 0));
        let whole = Step::Copy(Start::Whole { attempt: 5 });
        let again = Step::Copy(Start::Rows { attempt: 5 });
        for table in [&keyed, &keyless] {
            assert_eq!(step(table, None, false), Step::Copy(Start::Fresh));
            assert_eq!(step(table, Some(&offset(2, true, false)), false), Step::None);
            assert_eq!(step(table, Some(&offset(1, true, false)), true), whole);
            assert_eq!(step(table, Some(&offset(1, false, false)), true), whole);
        }
        assert_eq!(step(&keyed, Some(&offset(1, true, false)), false), again);
        assert_eq!(step(&keyless, Some(&offset(1, true, false)), false), Step::Adopt);
        let half = offset(2, false, true);
        assert_eq!(step(&keyed, Some(&half), false), Step::Copy(Start::Resume(half.clone())));
        assert_eq!(step(&keyless, Some(&half), false), whole);
        let begun = TableOffset { after: None, ..half };
        assert_eq!(
            step(&keyed, Some(&begun), false),
            whole,
            "its truncate comes again, and its rows behind it"
        );
        assert_eq!(step(&keyed, Some(&offset(1, false, false)), false), again);
        assert_eq!(step(&keyed, Some(&offset(1, false, true)), false), whole, "its truncate may be missing");
    }
}
