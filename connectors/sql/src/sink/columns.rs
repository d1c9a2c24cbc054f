//! Which columns of a table have to be added, renamed or filled so that it can take the rows of a schema. Pure.
//!
//! Sources that know a column by more than its name say so ([`Field::id`]). A sink remembers beside its tables which
//! column holds which ([`Known`], in the table [`COLUMNS_TABLE`], changed in the same transaction as the columns). What
//! is to be done follows from the two alone, so that doing it again after a crash does nothing, and so that it does
//! not matter whether every schema in between has been seen.
//!
//! Columns that the source dropped stay, and rows that come later leave them null. A table that the sink did not create
//! keeps its columns' names: a renaming adds the new column and copies the values.

use std::collections::HashSet;

use towpath_api::{ColumnId, Field};

/// The name of the table that remembers the source's columns.
pub const COLUMNS_TABLE: &str = "towpath_sink_columns";
/// Bytes of a name that both dialects allow.
const NAME_BYTES_MAX: usize = 63;

/// A column of the source and the name of the column that holds it here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The source's column.
    pub id: ColumnId,
    /// Our column.
    pub name: String,
}

/// One thing to do to a table's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnChange {
    /// The column gets another name.
    Rename {
        /// Its name.
        from: String,
        /// Its new name.
        to: String,
    },
    /// A column is added for this field, with its initial value in the rows that are there.
    Add(usize),
    /// In all rows, columns get new values, all at once: from another column, or the field's initial value.
    Fill(Vec<Filling>),
}

/// A column that is filled in all rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filling {
    /// The field whose column it is.
    pub field: usize,
    /// The column that the values come from; without one, the field's initial value.
    pub from: Option<String>,
}

/// What [`reconcile`] finds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reconciled {
    /// What to do, in this order.
    pub changes: Vec<ColumnChange>,
    /// What is to be remembered afterwards of the columns concerned; replaces what was.
    pub known: Vec<Known>,
}

/// The column cannot be renamed here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColumnsError {
    /// Several tables of the source are written into this one.
    #[error("the column {from:?} was renamed to {to:?} in one of several sources that share it here")]
    Shared {
        /// The column here.
        from: String,
        /// Its name in the source.
        to: String,
    },
    /// The new name is that of a column which somebody else added.
    #[error(
        "the column {from:?} was renamed to {to:?} in the source, but there is another column of that name"
    )]
    Taken {
        /// The column here.
        from: String,
        /// Its name in the source.
        to: String,
    },
}

/// A table's columns as they are.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    /// Their names.
    pub names: &'a [String],
    /// What is remembered of them.
    pub known: &'a [Known],
    /// Whether this sink created the table, so that it may rename columns.
    pub ours: bool,
    /// Whether two names are the same to the database.
    pub same: fn(&str, &str) -> bool,
}

impl<'a> Columns<'a> {
    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| (self.same)(known, name))
    }

    /// Our column for the source's column `id`.
    fn of(&self, id: ColumnId) -> Option<&'a str> {
        let known = self.known.iter().find(|known| known.id == id)?;
        self.has(&known.name).then_some(known.name.as_str())
    }

    /// What the column `name` holds of the source's table.
    fn owner(&self, name: &str, table: u64) -> Option<ColumnId> {
        let owns = |known: &&Known| known.id.table == table && (self.same)(&known.name, name);
        self.known.iter().find(owns).map(|known| known.id)
    }

    fn is_shared(&self, name: &str, table: u64) -> bool {
        self.known.iter().any(|known| known.id.table != table && (self.same)(&known.name, name))
    }

    /// The column that `field` was before it got its name, told by the source and not by an identity.
    fn told_old(&self, fields: &[&Field], field: &Field) -> Option<&'a str> {
        let old = field.renamed_from.as_deref()?;
        let is_known = field.id.is_some_and(|id| self.owner(old, id.table).is_some());
        let is_field = fields.iter().any(|other| (self.same)(&other.name, old));
        if is_known || is_field {
            return None;
        }
        self.names.iter().map(String::as_str).find(|name| (self.same)(name, old))
    }
}

/// What has to be done so that `columns` hold `fields`.
///
/// # Errors
/// [`ColumnsError`] where it cannot be done without harm to others.
pub fn reconcile(columns: Columns<'_>, fields: &[&Field]) -> Result<Reconciled, ColumnsError> {
    let mut work = Work {
        columns,
        fields,
        renames: vec![],
        fills: vec![],
        adds: vec![],
        asides: vec![],
        former: vec![],
    };
    for (index, field) in fields.iter().enumerate() {
        match field.id.and_then(|id| Some((id, columns.of(id)?))) {
            Some((_, name)) if name == field.name => {}
            Some((id, name)) => work.renamed(index, id, name)?,
            None => work.unknown(index)?,
        }
    }
    Ok(work.finish())
}

struct Work<'a> {
    columns: Columns<'a>,
    fields: &'a [&'a Field],
    renames: Vec<(String, String)>,
    fills: Vec<Filling>,
    adds: Vec<usize>,
    /// Columns that make room for another of their name.
    asides: Vec<Known>,
    /// Columns whose values were copied to another: what is still in them is nobody's.
    former: Vec<Known>,
}

/// From here on, numbers mark columns whose values moved on; no source's column has such a number.
const FORMER: u32 = 1 << 31;

impl Work<'_> {
    /// The source calls the column that `name` holds by another name.
    fn renamed(&mut self, index: usize, id: ColumnId, name: &str) -> Result<(), ColumnsError> {
        let to = &self.fields[index].name;
        if !self.columns.ours {
            if !self.columns.has(to) {
                self.adds.push(index);
            }
            self.fills.push(Filling { field: index, from: Some(name.to_owned()) });
            self.leave(name, id.table);
            return Ok(());
        }
        if self.columns.is_shared(name, id.table) {
            return Err(ColumnsError::Shared { from: name.to_owned(), to: to.clone() });
        }
        // Only its spelling may differ (SQLite).
        if self.columns.has(to) && !(self.columns.same)(to, name) && !self.vacated(to, id.table) {
            return Err(ColumnsError::Taken { from: name.to_owned(), to: to.clone() });
        }
        self.renames.push((name.to_owned(), to.clone()));
        Ok(())
    }

    /// Notes that the values in the column `name` moved on.
    fn leave(&mut self, name: &str, table: u64) {
        let formers = || {
            self.columns
                .known
                .iter()
                .chain(&self.former)
                .filter(|known| known.id.table == table && known.id.column >= FORMER)
        };
        if formers().any(|known| (self.columns.same)(&known.name, name)) {
            return;
        }
        let column =
            formers().map(|known| known.id.column).max().map_or(FORMER, |last| last.saturating_add(1));
        self.former.push(Known { id: ColumnId { table, column }, name: name.to_owned() });
    }

    /// Whether the column called `name` goes away: it is renamed itself, or was dropped and is put aside now.
    fn vacated(&mut self, name: &str, table: u64) -> bool {
        let Some(owner) = self.columns.owner(name, table) else { return false };
        if self.fields.iter().any(|field| field.id == Some(owner)) {
            return true;
        }
        if self.columns.is_shared(name, table) {
            return false;
        }
        if !self.asides.iter().any(|aside| aside.id == owner) {
            self.asides.push(Known { id: owner, name: name.to_owned() });
        }
        true
    }

    /// The source has a column that we do not know.
    fn unknown(&mut self, index: usize) -> Result<(), ColumnsError> {
        let field = self.fields[index];
        if !self.columns.has(&field.name) {
            match self.columns.told_old(self.fields, field) {
                Some(old) if self.columns.ours => self.renames.push((old.to_owned(), field.name.clone())),
                Some(old) => {
                    self.adds.push(index);
                    self.fills.push(Filling { field: index, from: Some(old.to_owned()) });
                }
                None => self.adds.push(index),
            }
            return Ok(());
        }
        let Some(id) = field.id else { return Ok(()) };
        if self.columns.owner(&field.name, id.table).is_none() {
            // Nobody's, or another table's: this is where the field goes.
            return Ok(());
        }
        // The name belonged to another column of the same table.
        if !self.columns.ours {
            self.fills.push(Filling { field: index, from: None });
        } else if self.vacated(&field.name, id.table) {
            self.adds.push(index);
        } else {
            return Err(ColumnsError::Shared { from: field.name.clone(), to: field.name.clone() });
        }
        Ok(())
    }

    fn finish(self) -> Reconciled {
        let mut found = Reconciled::default();
        let names = self.columns.names.iter().map(String::as_str);
        let mut taken: HashSet<String> =
            names.chain(self.fields.iter().map(|field| field.name.as_str())).map(str::to_lowercase).collect();
        for aside in self.asides {
            let to = free_name(&format!("{}_dropped", aside.name), &mut taken);
            found.changes.push(ColumnChange::Rename { from: aside.name, to: to.clone() });
            found.known.push(Known { id: aside.id, name: to });
        }
        let same = self.columns.same;
        let crosses = |(_, to): &(String, String)| self.renames.iter().any(|(from, _)| same(from, to));
        let (crossing, plain): (Vec<_>, Vec<_>) = self.renames.iter().cloned().partition(crosses);
        let mut behind = Vec::new();
        for (from, to) in crossing {
            // Its new name is still that of another: by way of a name of its own.
            let way = free_name("towpath_rename", &mut taken);
            found.changes.push(ColumnChange::Rename { from, to: way.clone() });
            behind.push(ColumnChange::Rename { from: way, to });
        }
        found.changes.extend(plain.into_iter().map(|(from, to)| ColumnChange::Rename { from, to }));
        found.changes.extend(behind);
        found.changes.extend(self.adds.into_iter().map(ColumnChange::Add));
        if !self.fills.is_empty() {
            found.changes.push(ColumnChange::Fill(self.fills));
        }
        let known = |field: &&&Field| Some(Known { id: field.id?, name: field.name.clone() });
        let fields: Vec<Known> = self.fields.iter().filter_map(|field| known(&field)).collect();
        let is_new = |known: &Known| !self.columns.known.contains(known);
        found.known.extend(self.former.into_iter().chain(fields).filter(is_new));
        found
    }
}

/// `wanted`, shortened and numbered so that it is nobody's name.
fn free_name(wanted: &str, taken: &mut HashSet<String>) -> String {
    let mut number = 0_u32;
    loop {
        let suffix = if number == 0 { String::new() } else { format!("_{number}") };
        let mut end = wanted.len().min(NAME_BYTES_MAX - suffix.len());
        while !wanted.is_char_boundary(end) {
            end -= 1;
        }
        let name = format!("{}{suffix}", &wanted[..end]);
        if taken.insert(name.to_lowercase()) {
            return name;
        }
        number += 1;
    }
}

#[cfg(test)]
#[path = "columns_tests.rs"]
mod tests;
