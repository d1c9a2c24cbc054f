//! From replication messages to records, transaction by transaction, in bounded memory.

use std::collections::HashMap;
use std::sync::Arc;

use towpath_api::{BatchBuilder, ConnectorError, Op, RejectedInput};

use super::super::cells::{Cells, Span};
use super::super::lsn::Lsn;
use super::super::offsets::{Partial, STREAM_LANE, StreamDoc, stream_position};
use super::super::pgoutput::{Decoder, Message, Old};
use super::super::shape::{Image, Provenance, Shape, UNREADABLE_VALUE};
use super::feed::PG_EPOCH_US;
use super::toast::MissingToast;

/// Ordinals of one change: delete, tombstone, create, if its key changes.
const ORDINALS: u64 = 3;
/// The whole transaction is covered.
const ALL: u64 = u64::MAX;

/// Captured tables by object id, with the LSN from which on their changes count.
pub(crate) type Selected = HashMap<u32, Lsn>;

/// A table that the stream has described.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// `None` if it is not captured.
    pub(crate) shape: Option<Arc<Shape>>,
    /// Changes of transactions that commit before it are in the copy.
    pub(crate) from_lsn: Lsn,
}

/// What has to be looked up before a message can be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Need {
    /// The first change that counts since this captured table was described.
    Relation(u32),
    /// A change of key leaves values out.
    Toast(MissingToast),
}

/// The transaction in work.
#[derive(Debug, Clone, Copy)]
struct Transaction {
    commit_lsn: Lsn,
    ts_ms: i64,
    xid: u32,
    /// Changes so far.
    changes: u64,
    /// Ordinals up to this one are covered.
    covered: Option<u64>,
}

/// Values looked up for a change of key.
#[derive(Debug, Default)]
struct Fetched {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

/// Turns messages into records and knows how far they reach.
#[derive(Debug)]
pub(crate) struct Records {
    decoder: Decoder,
    selected: Selected,
    /// Captured tables with the LSN up to which rows may have been copied that are newer than a change.
    overtaken: Selected,
    relations: HashMap<u32, Known>,
    /// Descriptions of captured tables that no change needed so far: one that a copy or a replay covers may be older
    /// than what is known.
    described: HashMap<u32, Vec<u8>>,
    transaction: Option<Transaction>,
    end_lsn: Lsn,
    partial: Option<Partial>,
    tombstones: bool,
    fetched: Option<Fetched>,
    scratch: Vec<u8>,
    rejected: Vec<RejectedInput>,
}

/// One change on its way into records.
struct Change<'a> {
    shape: &'a Shape,
    transaction: Transaction,
    lsn: u64,
    tombstones: bool,
    /// Whether the row may be gone from the copy: it was read later, after the row had been deleted.
    overtaken: bool,
}

impl Records {
    /// Begins at `position`.
    pub(crate) fn new(
        selected: Selected,
        overtaken: Selected,
        position: &StreamDoc,
        tombstones: bool,
    ) -> Self {
        Self {
            decoder: Decoder::default(),
            selected,
            overtaken,
            relations: HashMap::new(),
            described: HashMap::new(),
            transaction: None,
            end_lsn: position.end_lsn,
            partial: position.transaction,
            tombstones,
            fetched: None,
            scratch: Vec::new(),
            rejected: Vec::new(),
        }
    }

    /// Changes that could not be made records of since this was asked last.
    pub(crate) fn take_rejected(&mut self) -> Vec<RejectedInput> {
        std::mem::take(&mut self.rejected)
    }

    /// Whether there are such changes.
    pub(crate) const fn has_rejected(&self) -> bool {
        !self.rejected.is_empty()
    }

    /// Whether no transaction is in work.
    pub(crate) const fn is_between_transactions(&self) -> bool {
        self.transaction.is_none()
    }

    /// Up to where everything that was taken reaches, for the stream's document.
    pub(crate) fn position(&self) -> (Lsn, Option<Partial>) {
        let partial = match self.transaction {
            Some(Transaction { commit_lsn, changes, covered, .. }) if covered != Some(ALL) => {
                let taken = changes.checked_mul(ORDINALS).and_then(|ordinals| ordinals.checked_sub(1));
                taken.max(covered).map(|ordinal| Partial { commit_lsn, ordinal }).or(self.partial)
            }
            _ => self.partial,
        };
        (self.end_lsn, partial)
    }

    /// The description that came last for a captured table, if no change needed it yet.
    pub(crate) fn description(&self, oid: u32) -> Option<&[u8]> {
        self.described.get(&oid).map(Vec::as_slice)
    }

    /// Takes note of what a captured table's description means.
    pub(crate) fn describe(&mut self, oid: u32, shape: Arc<Shape>) {
        self.described.remove(&oid);
        let from_lsn = self.selected.get(&oid).copied().unwrap_or_default();
        self.relations.insert(oid, Known { shape: Some(shape), from_lsn });
    }

    /// No change of this table counts any more: it is going to be copied anew.
    pub(crate) fn leave_out(&mut self, oid: u32) {
        self.described.remove(&oid);
        self.selected.insert(oid, Lsn(u64::MAX));
        self.relations.insert(oid, Known { shape: None, from_lsn: Lsn(u64::MAX) });
    }

    /// What has to be looked up before a change of table `oid` can become records.
    fn unresolved(&self, oid: u32) -> Option<Need> {
        if !self.described.contains_key(&oid) {
            return None;
        }
        let transaction = self.transaction?;
        let from_lsn = self.selected.get(&oid).copied().unwrap_or_default();
        let is_covered =
            |covered: u64| transaction.changes.saturating_mul(ORDINALS) + (ORDINALS - 1) <= covered;
        let counts = transaction.commit_lsn >= from_lsn && !transaction.covered.is_some_and(is_covered);
        counts.then_some(Need::Relation(oid))
    }

    /// Takes note of values that were looked up for the message that comes again now.
    pub(crate) fn provide_toast(&mut self, values: &[Option<Option<String>>]) {
        let mut fetched = Fetched::default();
        for value in values {
            fetched.spans.push(match value {
                None => Span::UNCHANGED,
                Some(None) => Span::NULL,
                Some(Some(text)) => {
                    let start = fetched.bytes.len();
                    fetched.bytes.extend_from_slice(text.as_bytes());
                    Span::new(start, fetched.bytes.len())
                }
            });
        }
        self.fetched = Some(fetched);
    }

    /// The server has sent everything up to `lsn`. `true` if that moves the position.
    pub(crate) fn keepalive(&mut self, lsn: Lsn) -> bool {
        // Within a transaction, or with one half covered, it says nothing about us.
        let moves = self.transaction.is_none() && self.partial.is_none() && lsn > self.end_lsn;
        if moves {
            self.end_lsn = lsn;
        }
        moves
    }

    /// Takes one pgoutput message of the change at `lsn`; when something has to be looked up first, nothing is taken.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        lsn: u64,
        builder: &mut BatchBuilder,
    ) -> Result<Option<Need>, ConnectorError> {
        match self.decoder.decode(bytes).map_err(protocol)? {
            Message::Insert { oid } => {
                self.change(oid, lsn, bytes, |records, change| records.insert(change, bytes, builder))
            }
            Message::Update { oid, old } => {
                self.change(oid, lsn, bytes, |records, change| records.update(change, old, bytes, builder))
            }
            Message::Delete { oid, old } => {
                self.change(oid, lsn, bytes, |records, change| records.delete(change, old, bytes, builder))
            }
            Message::Begin { commit_lsn, commit_time_us, xid } => {
                self.begin(commit_lsn, commit_time_us, xid).map(|()| None)
            }
            Message::Commit { commit_lsn, end_lsn } => self.commit(commit_lsn, end_lsn).map(|()| None),
            Message::Relation(relation) => {
                let oid = relation.oid;
                match self.selected.get(&oid) {
                    Some(from_lsn) if *from_lsn < Lsn(u64::MAX) => {
                        self.described.insert(oid, bytes.to_vec());
                    }
                    _ => {
                        self.relations.insert(oid, Known { shape: None, from_lsn: Lsn(0) });
                    }
                }
                Ok(None)
            }
            Message::Truncate { oids } => {
                // Before the first of them, since the message comes again as a whole.
                if let Some(need) = oids.iter().find_map(|oid| self.unresolved(oid)) {
                    return Ok(Some(need));
                }
                for oid in oids.iter() {
                    self.change(oid, lsn, bytes, |_, change| {
                        change.truncate(builder);
                        Ok(None)
                    })?;
                }
                Ok(None)
            }
            Message::Other => Ok(None),
        }
    }

    fn begin(&mut self, commit_lsn: Lsn, commit_time_us: i64, xid: u32) -> Result<(), ConnectorError> {
        let covered = match self.partial {
            _ if commit_lsn < self.end_lsn => Some(ALL),
            Some(partial) if partial.commit_lsn == commit_lsn => Some(partial.ordinal),
            // R7: the rest of a transaction that was taken in part must come first.
            Some(partial) if partial.commit_lsn < commit_lsn => {
                return Err(ConnectorError::terminal(
                    "PG_POSITION_GONE",
                    format!(
                        "the slot goes on at {commit_lsn}, but the transaction that commits at {} was read in part only",
                        partial.commit_lsn
                    ),
                )
                .with_hint("the slot was moved by somebody else; reset the pipeline (`towpath pipelines reset`) to copy the tables anew"));
            }
            _ => None,
        };
        let ts_ms = commit_time_us.saturating_add(PG_EPOCH_US).div_euclid(1000);
        self.transaction = Some(Transaction { commit_lsn, ts_ms, xid, changes: 0, covered });
        Ok(())
    }

    fn commit(&mut self, commit_lsn: Lsn, end_lsn: Lsn) -> Result<(), ConnectorError> {
        match self.transaction.take() {
            Some(transaction) if transaction.commit_lsn == commit_lsn => {}
            _ => return Err(ConnectorError::bug("PG_PROTOCOL", "a commit belongs to no transaction")),
        }
        if self.partial.is_some_and(|partial| partial.commit_lsn <= commit_lsn) {
            self.partial = None;
        }
        self.end_lsn = self.end_lsn.max(end_lsn);
        Ok(())
    }

    /// Counts a change and, if its table is captured and its transaction counts, makes records of it.
    fn change(
        &mut self,
        oid: u32,
        lsn: u64,
        bytes: &[u8],
        make: impl FnOnce(&mut Self, Change<'_>) -> Result<Option<Need>, ConnectorError>,
    ) -> Result<Option<Need>, ConnectorError> {
        let Some(transaction) = self.transaction else {
            return Err(ConnectorError::bug("PG_PROTOCOL", "a change belongs to no transaction"));
        };
        if let Some(need) = self.unresolved(oid) {
            return Ok(Some(need));
        }
        let uncounted = Known { shape: None, from_lsn: Lsn(0) };
        let known = match self.relations.get(&oid) {
            Some(known) => known,
            None if self.described.contains_key(&oid) => &uncounted,
            None => {
                return Err(ConnectorError::bug(
                    "PG_PROTOCOL",
                    "a change belongs to a table that was not described",
                ));
            }
        };
        let counts = transaction.commit_lsn >= known.from_lsn && transaction.covered != Some(ALL);
        if let (Some(shape), true) = (&known.shape, counts) {
            let shape = Arc::clone(shape);
            let overtaken = self.overtaken.get(&oid).is_some_and(|until| transaction.commit_lsn < *until);
            let change = Change { shape: &shape, transaction, lsn, tombstones: self.tombstones, overtaken };
            match make(self, change) {
                Ok(None) => {}
                Ok(Some(need)) => return Ok(Some(need)),
                Err(error) if error.code() == UNREADABLE_VALUE => self.rejected.push(RejectedInput {
                    position: format!("{}, change at {}", shape.table, Lsn(lsn)),
                    bytes: bytes.to_vec(),
                    error,
                }),
                Err(error) => return Err(error),
            }
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.changes += 1;
        }
        Ok(None)
    }

    fn insert(
        &mut self,
        change: Change<'_>,
        bytes: &[u8],
        builder: &mut BatchBuilder,
    ) -> Result<Option<Need>, ConnectorError> {
        let new = self.decoder.new_cells(bytes);
        change.row(
            builder,
            &mut self.scratch,
            0,
            Op::Create,
            Images { after: Some((new, Image::Whole)), ..Images::of(new) },
        )?;
        Ok(None)
    }

    fn update(
        &mut self,
        change: Change<'_>,
        old: Old,
        bytes: &[u8],
        builder: &mut BatchBuilder,
    ) -> Result<Option<Need>, ConnectorError> {
        let (new, old_cells) = (self.decoder.new_cells(bytes), self.decoder.old_cells(bytes));
        let scratch = &mut self.scratch;
        let full = old == Old::Full;
        let image = if full { Image::Over(old_cells) } else { Image::Whole };
        if old != Old::Untold && change.shape.key_differs(old_cells, new) {
            let mut image = image;
            let fetched;
            if !full && change.emits(2) {
                if self.fetched.is_none()
                    && let Some(missing) = MissingToast::of(change.shape, new)
                {
                    return Ok(Some(Need::Toast(missing)));
                }
                if let Some(values) = self.fetched.take() {
                    fetched = values;
                    image = Image::Over(Cells::new(&fetched.bytes, &fetched.spans));
                }
            }
            let before = (old_cells, if full { Image::Whole } else { Image::KeyOnly });
            change.delete(builder, scratch, before)?;
            let images =
                Images { key: new, fallback: Some(old_cells), before: None, after: Some((new, image)) };
            change.row(builder, scratch, 2, Op::Create, images)?;
            return Ok(None);
        }
        let images = Images {
            key: new,
            fallback: (old != Old::Untold).then_some(old_cells),
            before: full.then_some((old_cells, Image::Whole)),
            after: Some((new, image)),
        };
        // Without the row, nobody could apply what does not tell all of it; its deletion follows.
        let op = if change.overtaken && !full && new.has_unchanged() { Op::Create } else { Op::Update };
        change.row(builder, scratch, 0, op, images)?;
        Ok(None)
    }

    fn delete(
        &mut self,
        change: Change<'_>,
        old: Old,
        bytes: &[u8],
        builder: &mut BatchBuilder,
    ) -> Result<Option<Need>, ConnectorError> {
        let cells = self.decoder.old_cells(bytes);
        let image = if old == Old::Full { Image::Whole } else { Image::KeyOnly };
        change.delete(builder, &mut self.scratch, (cells, image))?;
        Ok(None)
    }
}

/// The rows of one record.
struct Images<'a> {
    key: Cells<'a>,
    /// Has key columns that `key` does not tell.
    fallback: Option<Cells<'a>>,
    before: Option<(Cells<'a>, Image<'a>)>,
    after: Option<(Cells<'a>, Image<'a>)>,
}

impl<'a> Images<'a> {
    const fn of(key: Cells<'a>) -> Self {
        Self { key, fallback: None, before: None, after: None }
    }
}

impl Change<'_> {
    fn ordinal(&self, part: u64) -> u64 {
        self.transaction.changes.saturating_mul(ORDINALS).saturating_add(part)
    }

    fn emits(&self, part: u64) -> bool {
        self.transaction.covered.is_none_or(|covered| self.ordinal(part) > covered)
    }

    fn provenance(&self) -> Provenance {
        Provenance {
            ts_ms: self.transaction.ts_ms,
            snapshot: false,
            xid: Some(self.transaction.xid),
            lsn: self.lsn,
            commit_lsn: self.transaction.commit_lsn.0,
        }
    }

    /// One record; none if its ordinal is covered.
    fn row(
        &self,
        builder: &mut BatchBuilder,
        scratch: &mut Vec<u8>,
        part: u64,
        op: Op,
        images: Images<'_>,
    ) -> Result<(), ConnectorError> {
        if !self.emits(part) {
            return Ok(());
        }
        let shape = self.shape;
        let mut record = builder.record(&shape.schema);
        record
            .op(Some(op))
            .timestamp_ms(self.transaction.ts_ms)
            .position(STREAM_LANE, &stream_position(self.transaction.commit_lsn, self.ordinal(part)));
        record.try_key(|row| shape.write_key(row, images.key, images.fallback, scratch))?;
        if let Some((cells, image)) = images.before {
            record.try_before(|row| shape.write_row(row, cells, image, scratch))?;
        }
        if let Some((cells, image)) = images.after {
            record.try_after(|row| shape.write_row(row, cells, image, scratch))?;
        }
        let provenance = self.provenance();
        record.source(|row| provenance.write(row));
        record.finish();
        Ok(())
    }

    /// A delete and its tombstone.
    fn delete(
        &self,
        builder: &mut BatchBuilder,
        scratch: &mut Vec<u8>,
        before: (Cells<'_>, Image<'_>),
    ) -> Result<(), ConnectorError> {
        let images = Images { before: Some(before), ..Images::of(before.0) };
        self.row(builder, scratch, 0, Op::Delete, images)?;
        // Without a key there is nothing that compaction could forget.
        if self.tombstones && self.shape.is_keyed() {
            self.row(builder, scratch, 1, Op::Tombstone, Images::of(before.0))?;
        }
        Ok(())
    }

    fn truncate(&self, builder: &mut BatchBuilder) {
        if !self.emits(0) {
            return;
        }
        let provenance = self.provenance();
        let mut record = builder.record(&self.shape.schema);
        record
            .op(Some(Op::Truncate))
            .timestamp_ms(self.transaction.ts_ms)
            .position(STREAM_LANE, &stream_position(self.transaction.commit_lsn, self.ordinal(0)))
            .source(|row| provenance.write(row));
        record.finish();
    }
}

/// Bytes that make no sense: a bug of ours or a protocol that we do not speak.
pub(super) fn protocol(cause: super::super::pgoutput::Malformed) -> ConnectorError {
    ConnectorError::bug("PG_PROTOCOL", "the replication stream cannot be read").with_cause(cause)
}
