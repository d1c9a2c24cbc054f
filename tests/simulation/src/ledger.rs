//! What transactional producers asked for and were told, to be compared with what became of it.

use std::collections::BTreeMap;

use crate::fates::Decided;
use crate::violation::{ASKED, ATOMIC, COMMITTED, Checked, Violation};

/// A transaction, as its producer knows it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Transaction {
    /// Whose: the place of the transactional id.
    id: usize,
    commit_asked: bool,
    commit_acknowledged: bool,
    /// How it ended, and the partition that was seen first.
    fate: Option<(bool, usize)>,
    /// Acknowledged records: partition, its generation, record.
    acknowledged: Vec<(usize, u64, u64)>,
}

/// All transactions.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    transactions: Vec<Transaction>,
    /// By transactional id: the last transaction that committed offsets of its group.
    pub(crate) group_offsets: BTreeMap<usize, i64>,
    /// Some partition lost committed records where that is allowed: nothing can be said any more.
    pub(crate) is_void: bool,
}

impl Ledger {
    /// A transaction begins. Its number, from 1 on.
    pub(crate) fn begin(&mut self, id: usize) -> u64 {
        self.transactions.push(Transaction { id, ..Transaction::default() });
        self.transactions.len() as u64
    }

    fn get(&mut self, number: u64) -> Option<&mut Transaction> {
        usize::try_from(number).ok()?.checked_sub(1).and_then(|index| self.transactions.get_mut(index))
    }

    /// The producer is about to ask for an end.
    pub(crate) fn asks(&mut self, number: u64, commit: bool) {
        if let Some(transaction) = self.get(number) {
            transaction.commit_asked |= commit;
        }
    }

    /// The producer was told that the transaction is committed.
    pub(crate) fn acknowledge(&mut self, number: u64) -> Checked {
        let is_void = self.is_void;
        let Some(transaction) = self.get(number) else { return Ok(()) };
        transaction.commit_acknowledged = true;
        if let Some((false, slot)) = transaction.fate
            && !is_void
        {
            let detail = format!("transaction {number} was aborted in partition {slot} and is acknowledged");
            return Err(Violation::new(COMMITTED, detail));
        }
        Ok(())
    }

    /// Records of a transaction are acknowledged.
    pub(crate) fn written(&mut self, number: u64, slot: usize, generation: u64, ids: &[u64]) {
        if let Some(transaction) = self.get(number) {
            transaction.acknowledged.extend(ids.iter().map(|id| (slot, generation, *id)));
        }
    }

    /// A transaction has ended in a partition. True when it is the first that is heard of it.
    pub(crate) fn decided(&mut self, slot: usize, decided: Decided) -> Checked<bool> {
        let Decided { transaction: number, commit, of_group } = decided;
        if self.is_void {
            return Ok(false);
        }
        let Some(transaction) = self.get(number) else { return Ok(false) };
        let (id, before) = (transaction.id, transaction.fate);
        transaction.fate.get_or_insert((commit, slot));
        let named = |commit| if commit { "committed" } else { "aborted" };
        if let Some((other, elsewhere)) = before.filter(|(other, _)| *other != commit) {
            let detail = format!(
                "transaction {number} is {} in partition {elsewhere} and {} in {slot}",
                named(other),
                named(commit)
            );
            return Err(Violation::new(ATOMIC, detail));
        }
        if commit && !transaction.commit_asked {
            let detail =
                format!("transaction {number} is committed in partition {slot}; its producer did not ask");
            return Err(Violation::new(ASKED, detail));
        }
        if !commit && transaction.commit_acknowledged {
            let detail = format!("transaction {number} is aborted in partition {slot} and was acknowledged");
            return Err(Violation::new(COMMITTED, detail));
        }
        if commit && of_group {
            self.group_offsets.insert(id, i64::try_from(number).unwrap_or(0));
        }
        Ok(before.is_none())
    }

    /// The acknowledged records of committed transactions: the transaction, and partition, generation, record.
    pub(crate) fn owed(&self) -> impl Iterator<Item = (u64, &(usize, u64, u64))> {
        let all = (1..).zip(&self.transactions);
        let committed = all.filter(|(_, transaction)| {
            transaction.commit_acknowledged || transaction.fate.is_some_and(|(commit, _)| commit)
        });
        committed.flat_map(|(number, transaction)| {
            transaction.acknowledged.iter().map(move |record| (number, record))
        })
    }
}
