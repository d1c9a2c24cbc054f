use proptest::prelude::*;

use super::*;

/// A table as PostgreSQL keeps it: attributes with numbers, versions and a file.
#[derive(Debug, Clone)]
struct Table {
    attributes: Vec<Attribute>,
    file: u32,
    clock: u32,
}

impl Table {
    fn new(names: &[&str]) -> Self {
        let mut table = Self { attributes: vec![], file: 1, clock: 1 };
        for name in names {
            table.add(name, 23, None);
        }
        table
    }

    fn tick(&mut self) -> u32 {
        self.clock += 1;
        self.clock
    }

    fn add(&mut self, name: &str, type_oid: u32, missing: Option<&str>) {
        let version = self.tick();
        self.attributes.push(Attribute {
            number: self.attributes.len() as i16 + 1,
            name: name.to_owned(),
            type_oid,
            modifier: -1,
            not_null: false,
            primary: false,
            identity: false,
            dropped: false,
            generated: false,
            expression: None,
            version,
            missing: missing.map(str::to_owned),
        });
    }

    fn live(&mut self, name: &str) -> &mut Attribute {
        let version = self.tick();
        let found = self.attributes.iter_mut().find(|one| !one.dropped && one.name == name);
        let found = found.unwrap_or_else(|| panic!("no column {name}"));
        found.version = version;
        found
    }

    fn drop(&mut self, name: &str) {
        let attribute = self.live(name);
        attribute.dropped = true;
        attribute.missing = None;
        attribute.name = format!("........pg.dropped.{}........", attribute.number);
    }

    fn rename(&mut self, from: &str, to: &str) {
        self.live(from).name = to.to_owned();
    }

    /// With new values in every row.
    fn rewrite(&mut self, name: &str, type_oid: u32) {
        self.live(name).type_oid = type_oid;
        self.vacuum_full();
    }

    fn vacuum_full(&mut self) {
        self.file += 1;
        for at in 0..self.attributes.len() {
            if self.attributes[at].missing.take().is_some() {
                self.attributes[at].version = self.tick();
            }
        }
    }

    fn observed(&self) -> Observed {
        Observed {
            attributes: self.attributes.clone(),
            files: [(7, self.file)].into(),
            snapshot: String::new(),
        }
    }

    /// Its columns are known, as after a copy.
    fn doc(&self) -> ShapeDoc {
        let now = self.observed();
        ShapeDoc::new(7, now.columns(), now.highest(), now.remembered(None))
    }
}

fn numbers(verdict: &Verdict) -> Option<Vec<(i16, &str)>> {
    match verdict {
        Verdict::Columns(columns) => {
            Some(columns.iter().map(|column| (column.number, column.name.as_str())).collect())
        }
        Verdict::Copy(_) => None,
    }
}

#[test]
fn renamings_are_known_by_number_however_many_there_were() {
    let mut table = Table::new(&["id", "a", "b"]);
    let doc = table.doc();
    table.rename("a", "tmp");
    table.rename("b", "a");
    table.rename("tmp", "b");
    let told = table.observed().told();
    table.rename("b", "c");
    let verdict = judge(&doc, &told, &table.observed());
    assert_eq!(numbers(&verdict), Some(vec![(1, "id"), (2, "b"), (3, "a")]), "swapped, and renamed since");
}

#[test]
fn an_initial_value_is_kept_as_long_as_the_column() {
    let mut table = Table::new(&["id"]);
    let mut doc = table.doc();
    table.add("x", 23, Some("5"));
    let initial = |doc: &ShapeDoc, table: &Table| {
        let now = table.observed();
        match judge(doc, &now.told(), &now) {
            Verdict::Columns(columns) => columns[1].initial.clone(),
            Verdict::Copy(why) => Some(why.to_owned()),
        }
    };
    assert_eq!(initial(&doc, &table).as_deref(), Some("5"));
    doc.seen = table.observed().remembered(Some(&doc.seen));
    table.vacuum_full();
    // The catalog has lost it; that a column changed with the file cannot be told from a rewrite.
    assert_eq!(initial(&doc, &table).as_deref(), Some(REWRITTEN));
    let mut table = Table::new(&["id"]);
    let doc = table.doc();
    table.add("x", 23, None);
    assert_eq!(initial(&doc, &table), None, "no default: null");
    table.vacuum_full();
    assert_eq!(initial(&doc, &table).as_deref(), Some(REWRITTEN), "null, or a volatile default");
}

#[test]
fn what_cannot_be_told_is_copied() {
    let copy = |doc: &ShapeDoc, told: &[Told], table: &Table| match judge(doc, told, &table.observed()) {
        Verdict::Copy(why) => why,
        Verdict::Columns(columns) => panic!("{columns:?}"),
    };
    // Dropped and added again, or renamed first and dropped later?
    let mut table = Table::new(&["id", "x"]);
    let doc = table.doc();
    table.drop("x");
    table.add("x", 25, None);
    let told = table.observed().told();
    assert_eq!(copy(&doc, &told, &table), UNCLEAR);
    // USING, even to the same type.
    let mut table = Table::new(&["id", "x"]);
    let doc = table.doc();
    table.rewrite("x", 23);
    assert_eq!(copy(&doc, &table.observed().told(), &table), REWRITTEN);
    let mut table = Table::new(&["id", "x"]);
    let doc = table.doc();
    table.vacuum_full();
    let now = table.observed();
    assert!(numbers(&judge(&doc, &now.told(), &now)).is_some(), "a mere VACUUM FULL changes no value");
    // int4 and oid share their bytes, not their text.
    let mut table = Table::new(&["id", "x"]);
    let doc = table.doc();
    table.live("x").type_oid = 26;
    assert_eq!(copy(&doc, &table.observed().told(), &table), RETYPED);
    let mut table = Table::new(&["id", "x"]);
    table.live("x").generated = true;
    let doc = table.doc();
    table.live("x").generated = false;
    assert_eq!(copy(&doc, &table.observed().told(), &table), EXPRESSED);
}

#[test]
fn what_is_read_exactly_needs_no_search() {
    let mut table = Table::new(&["id", "x"]);
    let doc = table.doc();
    table.drop("x");
    table.add("x", 23, Some("0"));
    let verdict = judge_exactly(&doc, &table.observed());
    assert_eq!(numbers(&verdict), Some(vec![(1, "id"), (3, "x")]));
}

#[test]
fn a_column_that_was_touched_while_it_was_copied_is_seen() {
    let mut table = Table::new(&["id", "a", "b"]);
    let doc = table.doc();
    table.add("c", 23, None);
    assert!(!is_touched(&doc.columns, &doc.seen, &table.observed()), "another column does no harm");
    table.rename("a", "tmp");
    table.rename("b", "a");
    table.rename("tmp", "b");
    table.rename("b", "tmp");
    table.rename("a", "b");
    table.rename("tmp", "a");
    assert!(is_touched(&doc.columns, &doc.seen, &table.observed()), "though the names are what they were");
}

#[test]
fn a_guess_goes_by_name_then_by_place() {
    let mut table = Table::new(&["id", "x"]);
    let doc = table.doc();
    table.rename("x", "y");
    let told = table.observed().told();
    table.drop("y");
    let guessed: Vec<i16> =
        guess(&doc, &told, &table.observed()).iter().map(|column| column.number).collect();
    assert_eq!(guessed, [1, 2]);
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

proptest! {
    /// Whatever happened before and after a description: what is made of it is true, or a copy.
    #[test]
    fn a_verdict_is_true(
        steps in proptest::collection::vec((0_u8..6, 0_usize..4, 0_usize..4), 0..12),
        described in 0_usize..12,
    ) {
        let mut table = Table::new(&["id", "a", "b"]);
        let doc = table.doc();
        let mut at_description = None;
        for (index, (what, one, other)) in steps.iter().copied().enumerate() {
            if index == described {
                at_description = Some(table.clone());
            }
            let has = |table: &Table, name: &str| {
                table.attributes.iter().any(|one| !one.dropped && one.name == name)
            };
            let (one, other) = (NAMES[one], NAMES[other]);
            match what {
                0 if !has(&table, one) => table.add(one, 23, None),
                1 if !has(&table, one) => table.add(one, 23, Some(other)),
                2 if has(&table, one) => table.drop(one),
                3 | 4 if has(&table, one) && !has(&table, other) => table.rename(one, other),
                5 => table.vacuum_full(),
                _ => {}
            }
        }
        let then = at_description.unwrap_or_else(|| table.clone());
        let (told, now) = (then.observed().told(), table.observed());
        if let Verdict::Columns(columns) = judge(&doc, &told, &now) {
            let truth = then.observed().columns();
            prop_assert_eq!(columns.len(), truth.len());
            for (column, truth) in columns.iter().zip(&truth) {
                prop_assert_eq!(column.number, truth.number);
                // Of a column that is gone by now, nobody will ask.
                let lives = now.attribute(truth.number).is_some_and(|one| !one.dropped);
                if truth.number > doc.highest && lives {
                    let added = then.attributes.iter().find(|one| one.number == truth.number);
                    prop_assert_eq!(&column.initial, &added.unwrap().missing);
                }
            }
        }
    }
}
