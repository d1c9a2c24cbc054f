//! How a table's columns came to be what they are. Pure.
//!
//! The stream describes a table by names and types, and sends nothing for what ALTER TABLE does to the rows that are
//! there. `pg_attribute` knows more (a number for each column, which survives renamings, and the initial value of a
//! column that was added without a rewrite), but it is read later than the stream's position: any number of changes may
//! lie in between. What is known for sure is put together:
//! - Numbers are never used twice and the stream's columns come in their order. A column that is there now was there
//!   before, unless it is newer; one that is gone now may have been there or not ([`locate`]). If more than one set of
//!   numbers fits, nothing is guessed.
//! - A table that was rewritten (another file) while a column was changed or added may hold anything in it: a volatile
//!   default, `USING`. One that keeps its file has the initial value, or null.
//!
//! Where the rows that are there cannot be told from that, the table is copied anew ([`Verdict::Copy`]): the source
//! has them.

use std::collections::BTreeMap;

use towpath_sql::pg_type;

use super::offsets::{ColumnDoc, SeenDoc, ShapeDoc};

/// A column of `pg_attribute`, also one that was dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attribute {
    /// `attnum`.
    pub(crate) number: i16,
    pub(crate) name: String,
    pub(crate) type_oid: u32,
    pub(crate) modifier: i32,
    pub(crate) not_null: bool,
    /// Whether it belongs to the primary key, and to the index of the replica identity.
    pub(crate) primary: bool,
    pub(crate) identity: bool,
    pub(crate) dropped: bool,
    pub(crate) generated: bool,
    /// What it is computed by.
    pub(crate) expression: Option<String>,
    /// `xmin` of its row.
    pub(crate) version: u32,
    /// What rows have that were there before it was added, as the server writes it.
    pub(crate) missing: Option<String>,
}

impl Attribute {
    /// Whether the stream carries it.
    pub(crate) const fn is_carried(&self) -> bool {
        !self.dropped && !self.generated
    }
}

/// What the catalog says about a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Observed {
    /// In the order of their numbers.
    pub(crate) attributes: Vec<Attribute>,
    /// Object id of each table that holds rows → the number of its file.
    pub(crate) files: BTreeMap<u32, u32>,
    /// `pg_current_snapshot()`.
    pub(crate) snapshot: String,
}

/// A column as the stream describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) name: String,
    pub(crate) type_oid: u32,
    pub(crate) modifier: i32,
}

/// What follows from a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The columns, which may be the same as before.
    Columns(Vec<ColumnDoc>),
    /// The rows that are there cannot be told; why.
    Copy(&'static str),
}

const REWRITTEN: &str = "it was rewritten while a column was changed or added, and the stream does not tell what its \
                         rows hold since";
const UNCLEAR: &str =
    "columns were dropped and others added or renamed, and the catalog no longer tells which is which";
const RETYPED: &str = "a column got a type with other values";
const EXPRESSED: &str = "a column that was computed is a column of its own now";

impl Observed {
    pub(crate) fn attribute(&self, number: i16) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.number == number)
    }

    pub(crate) fn highest(&self) -> i16 {
        self.attributes.last().map_or(0, |attribute| attribute.number)
    }

    fn versions(&self) -> BTreeMap<i16, u32> {
        self.attributes.iter().map(|attribute| (attribute.number, attribute.version)).collect()
    }

    fn generated(&self) -> Vec<i16> {
        let generated = self.attributes.iter().filter(|attribute| attribute.generated && !attribute.dropped);
        generated.map(|attribute| attribute.number).collect()
    }

    /// What is to be remembered of it. `before` knows initial values that the catalog may have lost since.
    pub(crate) fn remembered(&self, before: Option<&SeenDoc>) -> SeenDoc {
        let mut initials = BTreeMap::new();
        if let Some(before) = before {
            initials.clone_from(&before.initials);
            for attribute in &self.attributes {
                if !before.versions.contains_key(&attribute.number)
                    && let Some(missing) = &attribute.missing
                {
                    initials.insert(attribute.number, missing.clone());
                }
            }
            initials.retain(|number, _| self.attribute(*number).is_some_and(|attribute| !attribute.dropped));
        }
        // An older snapshot does as well, and is no reason to store anything.
        let snapshot = match before.filter(|before| before.files == self.files) {
            Some(before) => before.snapshot.clone(),
            None => self.snapshot.clone(),
        };
        SeenDoc {
            versions: self.versions(),
            generated: self.generated(),
            initials,
            files: self.files.clone(),
            snapshot,
        }
    }

    /// The table's columns right now, none of them new.
    pub(crate) fn columns(&self) -> Vec<ColumnDoc> {
        let column = |attribute: &Attribute| ColumnDoc {
            number: attribute.number,
            name: attribute.name.clone(),
            type_oid: attribute.type_oid,
            modifier: attribute.modifier,
            initial: None,
        };
        self.attributes.iter().filter(|attribute| attribute.is_carried()).map(column).collect()
    }

    /// Columns that are computed now.
    pub(crate) fn computed(&self) -> impl Iterator<Item = &Attribute> {
        self.attributes.iter().filter(|attribute| attribute.generated && !attribute.dropped)
    }

    /// Whether `columns` are those that there are right now, so that expressions speak of them.
    pub(crate) fn has_exactly(&self, columns: &[ColumnDoc]) -> bool {
        let now = self.columns();
        now.len() == columns.len()
            && now
                .iter()
                .zip(columns)
                .all(|(one, other)| one.number == other.number && one.name == other.name)
    }

    /// Whether columns that are computed came, went or changed since the catalog was `seen`.
    pub(crate) fn computes_otherwise(&self, seen: &SeenDoc) -> bool {
        let version = |attribute: &Attribute| (attribute.number, Some(attribute.version));
        let now: Vec<_> = self.computed().map(version).collect();
        let before: Vec<_> =
            seen.generated.iter().map(|number| (*number, seen.versions.get(number).copied())).collect();
        now != before
    }

    /// The table's columns right now, as the stream would describe them.
    pub(crate) fn told(&self) -> Vec<Told> {
        let told = |column: ColumnDoc| Told {
            name: column.name,
            type_oid: column.type_oid,
            modifier: column.modifier,
        };
        self.columns().into_iter().map(told).collect()
    }
}

/// Whether any of `columns` was touched since the catalog was `seen`: what names meant may have changed.
pub(crate) fn is_touched(columns: &[ColumnDoc], seen: &SeenDoc, now: &Observed) -> bool {
    columns.iter().any(|column| {
        now.attribute(column.number).map(|attribute| attribute.version)
            != seen.versions.get(&column.number).copied()
    })
}

/// Whether the table was rewritten and one of its columns changed or added since the catalog was `seen`.
fn is_rewritten(seen: &SeenDoc, now: &Observed) -> bool {
    let other_file = |(table, file): (&u32, &u32)| seen.files.get(table).is_some_and(|before| before != file);
    // One that is computed says nothing about the others.
    let changed = |attribute: &Attribute| {
        attribute.is_carried() && seen.versions.get(&attribute.number) != Some(&attribute.version)
    };
    now.files.iter().any(other_file) && now.attributes.iter().any(changed)
}

/// What `told`, the stream's description at some position before `now` was read, makes of the columns of `doc`.
pub(crate) fn judge(doc: &ShapeDoc, told: &[Told], now: &Observed) -> Verdict {
    if is_rewritten(&doc.seen, now) {
        return Verdict::Copy(REWRITTEN);
    }
    match locate(doc, told, now) {
        Some(numbers) => follow(doc, told, &numbers, now),
        None => Verdict::Copy(UNCLEAR),
    }
}

/// As [`judge`], where `now` is the description, and exact.
pub(crate) fn judge_exactly(doc: &ShapeDoc, now: &Observed) -> Verdict {
    if is_rewritten(&doc.seen, now) {
        return Verdict::Copy(REWRITTEN);
    }
    let numbers: Vec<i16> = now.columns().iter().map(|column| column.number).collect();
    follow(doc, &now.told(), &numbers, now)
}

/// The columns `told`, whose `numbers` are known.
fn follow(doc: &ShapeDoc, told: &[Told], numbers: &[i16], now: &Observed) -> Verdict {
    let seen = now.remembered(Some(&doc.seen));
    let mut columns = Vec::with_capacity(told.len());
    for (told, number) in told.iter().zip(numbers) {
        let old = doc.columns.iter().find(|old| old.number == *number);
        if old.is_some_and(|old| is_other_value(old, told)) {
            return Verdict::Copy(RETYPED);
        }
        if old.is_none() && *number <= doc.highest {
            return Verdict::Copy(EXPRESSED);
        }
        let initial = match old {
            Some(old) => old.initial.clone(),
            None => seen.initials.get(number).cloned(),
        };
        columns.push(ColumnDoc {
            number: *number,
            name: told.name.clone(),
            type_oid: told.type_oid,
            modifier: told.modifier,
            initial,
        });
    }
    Verdict::Columns(columns)
}

/// Whether a change of type that rewrote nothing may show other values all the same.
fn is_other_value(old: &ColumnDoc, told: &Told) -> bool {
    old.type_oid != told.type_oid && pg_type::carrier(old.type_oid) != pg_type::carrier(told.type_oid)
}

/// One number that the stream's columns may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate {
    number: i16,
    /// It was there before, or came later.
    is_new: bool,
    /// It is there now: if it is old, it was there all the time; if it is new, all that came before it are there, too.
    is_live: bool,
}

/// The numbers of the columns `told`, if only one choice fits.
fn locate(doc: &ShapeDoc, told: &[Told], now: &Observed) -> Option<Vec<i16>> {
    let mut candidates = Vec::new();
    for attribute in &now.attributes {
        let number = attribute.number;
        let is_new = number > doc.highest;
        let was_there = doc.columns.iter().any(|column| column.number == number);
        // One that was computed and is not any more came at an unknown time.
        let was_computed = doc.seen.generated.contains(&number);
        if was_there || (is_new || was_computed) && !attribute.generated {
            let is_live = !attribute.dropped && (was_there || is_new && !was_computed);
            candidates.push(Candidate { number, is_new, is_live });
        }
    }
    let mut search = Search { candidates: &candidates, wanted: told.len(), chosen: vec![], found: None };
    search.from(0, false).then_some(()).and(search.found)
}

/// Tries all choices, until a second one fits.
struct Search<'a> {
    candidates: &'a [Candidate],
    wanted: usize,
    chosen: Vec<i16>,
    found: Option<Vec<i16>>,
}

impl Search<'_> {
    /// Goes on at `at`; `ended` says that no newer column is there. False when two choices fit.
    fn from(&mut self, at: usize, ended: bool) -> bool {
        let rest = &self.candidates[at..];
        let must = rest.iter().filter(|one| one.is_live && !one.is_new).count();
        let may = if ended { rest.iter().filter(|one| !one.is_new).count() } else { rest.len() };
        if self.chosen.len() + must > self.wanted || self.chosen.len() + may < self.wanted {
            return true;
        }
        let Some(one) = rest.first().copied() else {
            return self.found.replace(self.chosen.clone()).is_none();
        };
        let may_be_there = !(one.is_new && ended);
        if may_be_there {
            self.chosen.push(one.number);
            let single = self.from(at + 1, ended);
            self.chosen.pop();
            if !single {
                return false;
            }
        }
        // Old ones that live cannot be left out; leaving a new one out that lives means that it came later.
        if one.is_live && !one.is_new {
            return true;
        }
        self.from(at + 1, ended || one.is_new && one.is_live)
    }
}

/// The likeliest columns, where a copy that would tell is not wanted: by name, then by place.
pub(crate) fn guess(doc: &ShapeDoc, told: &[Told], now: &Observed) -> Vec<ColumnDoc> {
    let seen = now.remembered(Some(&doc.seen));
    let named = |name: &str| {
        let live = now.attributes.iter().find(|attribute| attribute.is_carried() && attribute.name == name);
        let old = || doc.columns.iter().find(|column| column.name == name).map(|column| column.number);
        live.map(|attribute| attribute.number).or_else(old)
    };
    let mut columns: Vec<ColumnDoc> = Vec::with_capacity(told.len());
    for (place, told) in told.iter().enumerate() {
        let in_place = || {
            let old = doc.columns.get(place).map(|column| column.number);
            old.filter(|_| doc.columns.len() == columns.len().max(place + 1))
        };
        let number = named(&told.name).or_else(in_place).unwrap_or_default();
        let is_taken = columns.iter().any(|column| column.number == number);
        let old = doc.columns.iter().find(|column| column.number == number);
        let initial = old.map_or_else(|| seen.initials.get(&number), |old| old.initial.as_ref());
        columns.push(ColumnDoc {
            number: if is_taken { 0 } else { number },
            name: told.name.clone(),
            type_oid: told.type_oid,
            modifier: told.modifier,
            initial: initial.cloned(),
        });
    }
    columns
}

#[cfg(test)]
#[path = "evolution_tests.rs"]
mod tests;
