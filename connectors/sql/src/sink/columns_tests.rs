use proptest::prelude::*;
use towpath_api::Type;

use super::*;

fn id(table: u64, column: u32) -> ColumnId {
    ColumnId { table, column }
}

/// A column of table 1.
fn field(name: &str, column: u32) -> Field {
    Field { id: Some(id(1, column)), ..Field::nullable(name, Type::String) }
}

/// A table that has been reconciled again and again: names with the source's column that each holds.
#[derive(Debug, Clone, Default)]
struct Target {
    names: Vec<String>,
    /// Which column of the source each of `names` really holds.
    holds: Vec<Option<u32>>,
    known: Vec<Known>,
    ours: bool,
}

impl Target {
    fn ours() -> Self {
        Self { ours: true, ..Self::default() }
    }

    fn columns(&self) -> Columns<'_> {
        Columns { names: &self.names, known: &self.known, ours: self.ours, same: |a, b| a == b }
    }

    fn at(&self, name: &str) -> usize {
        self.names.iter().position(|known| known == name).unwrap_or_else(|| panic!("no column {name:?}"))
    }

    /// Does what `reconcile` says.
    fn take(&mut self, fields: &[Field]) -> Result<Vec<ColumnChange>, ColumnsError> {
        let fields: Vec<&Field> = fields.iter().collect();
        let found = reconcile(self.columns(), &fields)?;
        for change in &found.changes {
            match change {
                ColumnChange::Rename { from, to } => {
                    assert!(!self.names.contains(to), "{to:?} is there already");
                    let at = self.at(from);
                    self.names[at] = to.clone();
                }
                ColumnChange::Add(index) => {
                    assert!(!self.names.contains(&fields[*index].name));
                    self.names.push(fields[*index].name.clone());
                    self.holds.push(fields[*index].id.map(|id| id.column));
                }
                ColumnChange::Fill(fillings) => {
                    let old = self.holds.clone();
                    for filling in fillings {
                        let at = self.at(&fields[filling.field].name);
                        self.holds[at] = match &filling.from {
                            Some(from) => old[self.at(from)],
                            None => fields[filling.field].id.map(|id| id.column),
                        };
                    }
                }
            }
        }
        for known in found.known {
            self.known.retain(|old| old.id != known.id);
            self.known.push(known);
        }
        Ok(found.changes)
    }

    fn assert_holds(&self, fields: &[Field]) {
        for field in fields {
            assert_eq!(
                self.holds[self.at(&field.name)],
                field.id.map(|id| id.column),
                "{field:?} in {self:?}"
            );
        }
    }
}

#[test]
fn a_renaming_is_followed_whichever_schemas_were_seen() {
    let mut target = Target::ours();
    target.take(&[field("id", 1), field("a", 2)]).unwrap();
    // a → b → c; nothing was written under b.
    let changes = target.take(&[field("id", 1), field("c", 2)]).unwrap();
    assert_eq!(changes, [ColumnChange::Rename { from: "a".into(), to: "c".into() }]);
    assert!(target.take(&[field("id", 1), field("c", 2)]).unwrap().is_empty(), "done once");
}

#[test]
fn names_are_swapped_once() {
    let mut target = Target::ours();
    target.take(&[field("a", 1), field("b", 2), field("c", 3)]).unwrap();
    let swapped = [field("b", 1), field("c", 2), field("a", 3)];
    assert_eq!(target.take(&swapped).unwrap().len(), 6);
    target.assert_holds(&swapped);
    assert!(target.take(&swapped).unwrap().is_empty());
}

#[test]
fn a_column_dropped_and_added_again_is_another() {
    let mut target = Target::ours();
    target.take(&[field("id", 1), field("x", 2)]).unwrap();
    let again = [field("id", 1), field("x", 3)];
    let changes = target.take(&again).unwrap();
    let expected = [ColumnChange::Rename { from: "x".into(), to: "x_dropped".into() }, ColumnChange::Add(1)];
    assert_eq!(changes, expected);
    target.assert_holds(&again);
    target.take(&[field("id", 1), field("x", 4)]).unwrap();
    assert_eq!(target.names, ["id", "x_dropped", "x_dropped_1", "x"]);
    // One that was dropped does not stand in the way of another's new name.
    let mut target = Target::ours();
    target.take(&[field("a", 1), field("b", 2)]).unwrap();
    target.take(&[field("b", 1)]).unwrap();
    assert_eq!(target.names, ["b", "b_dropped"]);
}

#[test]
fn other_peoples_tables_keep_their_names_and_get_the_values() {
    let mut target = Target {
        names: ["id", "a", "b"].map(str::to_owned).to_vec(),
        holds: vec![Some(1), Some(2), Some(3)],
        ..Target::default()
    };
    assert!(target.take(&[field("id", 1), field("a", 2), field("b", 3)]).unwrap().is_empty());
    let swapped = [field("id", 1), field("b", 2), field("a", 3), field("new", 4)];
    target.take(&swapped).unwrap();
    target.assert_holds(&swapped);
    assert_eq!(target.names, ["id", "a", "b", "new"]);
    let renamed = [field("id", 1), field("c", 2), field("a", 5)];
    target.take(&renamed).unwrap();
    target.assert_holds(&renamed);
}

#[test]
fn columns_that_several_tables_share_are_not_renamed() {
    let mut target = Target::ours();
    target.take(&[field("id", 1), field("a", 2)]).unwrap();
    let other = |name: &str, column| Field { id: Some(id(9, column)), ..field(name, 1) };
    assert!(target.take(&[other("id", 1), other("a", 2)]).unwrap().is_empty(), "no reason to empty it");
    let shared = target.take(&[field("id", 1), field("b", 2)]).unwrap_err();
    assert_eq!(shared, ColumnsError::Shared { from: "a".into(), to: "b".into() });
    let mut target = Target::ours();
    target.take(&[field("a", 2)]).unwrap();
    target.names.push("b".into());
    let taken = target.take(&[field("b", 2)]).unwrap_err();
    assert_eq!(taken, ColumnsError::Taken { from: "a".into(), to: "b".into() });
}

#[test]
fn without_identities_the_name_before_is_believed() {
    let plain = |name: &str, old: Option<&str>| Field {
        renamed_from: old.map(str::to_owned),
        ..Field::nullable(name, Type::String)
    };
    let mut target = Target::ours();
    target.take(&[plain("a", None)]).unwrap();
    let changes = target.take(&[plain("b", Some("a"))]).unwrap();
    assert_eq!(changes, [ColumnChange::Rename { from: "a".into(), to: "b".into() }]);
    let changes = target.take(&[plain("c", Some("gone")), plain("b", Some("a"))]).unwrap();
    assert_eq!(changes, [ColumnChange::Add(0)]);
    let changes = target.take(&[plain("b", None), plain("d", Some("b"))]).unwrap();
    assert_eq!(changes, [ColumnChange::Add(1)], "its old name is another's now");
}

#[test]
fn names_stay_within_their_bound() {
    let long = "ä".repeat(31);
    let mut target = Target::ours();
    for column in 1..4 {
        target.take(&[field(&long, column)]).unwrap();
    }
    assert!(target.names.iter().all(|name| name.len() <= NAME_BYTES_MAX), "{:?}", target.names);
}

proptest! {
    /// Whatever happens to a table, and whichever of its shapes are seen: each column ends up with its own values.
    #[test]
    fn every_column_keeps_its_own_values(
        ours: bool,
        steps in proptest::collection::vec((0_u8..4, 0_usize..6, 0_usize..6, any::<bool>()), 1..40),
    ) {
        const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
        let mut source: Vec<(u32, &str)> = vec![(1, "a"), (2, "b")];
        let mut next = 3;
        let mut target = Target { ours, ..Target::default() };
        for (what, one, other, seen) in steps {
            let is_free = |source: &[(u32, &str)], name: &str| source.iter().all(|(_, known)| *known != name);
            match what {
                0 if is_free(&source, NAMES[one]) => {
                    source.push((next, NAMES[one]));
                    next += 1;
                }
                1 if source.len() > 1 => {
                    source.remove(one % source.len());
                }
                2 if is_free(&source, NAMES[other]) => {
                    let at = one % source.len();
                    source[at].1 = NAMES[other];
                }
                3 => {
                    let (one, other) = (one % source.len(), other % source.len());
                    let name = source[one].1;
                    source[one].1 = source[other].1;
                    source[other].1 = name;
                }
                _ => {}
            }
            if seen {
                let fields: Vec<Field> = source.iter().map(|(column, name)| field(name, *column)).collect();
                target.take(&fields).unwrap();
                target.assert_holds(&fields);
                prop_assert!(target.take(&fields).unwrap().is_empty());
            }
        }
    }
}
