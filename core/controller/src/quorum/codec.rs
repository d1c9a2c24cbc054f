//! The form of entries, votes and memberships on disk and between nodes. Integers are big-endian; the form does not
//! depend on that of the Raft library's own types.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use uuid::Uuid;

use super::types::{
    Change, Entry, LeaderId, LogId, Member, Membership, Payload, SnapshotMeta, StoredMembership, Vote, log_id,
};
use crate::{MetadataRecord, RecordError};

/// Bytes of an address or a name.
const TEXT_BYTES_MAX: usize = 1024;
/// Members of a cluster; far more than there will be.
const MEMBERS_MAX: usize = 100_000;

/// Why bytes are not what they should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("it ends early")]
    Short,
    #[error("{0} bytes too many")]
    Rest(usize),
    #[error("{0} is out of range")]
    Range(&'static str),
    #[error("a text that is not UTF-8")]
    Text,
    #[error("a membership that cannot be: {0}")]
    Membership(String),
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Reads what [`Writer`] wrote. Nothing is allocated for a length before the bytes are there (R10).
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], CodecError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(CodecError::Short)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        self.bytes(N)?.try_into().map_err(|_| CodecError::Short)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, CodecError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn bool(&mut self) -> Result<bool, CodecError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Range("a flag")),
        }
    }

    pub(crate) fn u32(&mut self) -> Result<u32, CodecError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, CodecError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, CodecError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub(crate) fn uuid(&mut self) -> Result<Uuid, CodecError> {
        Ok(Uuid::from_bytes(self.array()?))
    }

    /// Bytes with their length before them.
    pub(crate) fn slice(&mut self) -> Result<&'a [u8], CodecError> {
        let count = self.u32()? as usize;
        self.bytes(count)
    }

    pub(crate) fn text(&mut self) -> Result<String, CodecError> {
        let bytes = self.slice()?;
        if bytes.len() > TEXT_BYTES_MAX {
            return Err(CodecError::Range("a text's length"));
        }
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| CodecError::Text)
    }

    fn count(&mut self, max: usize, what: &'static str) -> Result<usize, CodecError> {
        let count = self.u32()? as usize;
        if count > max { Err(CodecError::Range(what)) } else { Ok(count) }
    }

    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Option<T>, CodecError> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    pub(crate) fn log_id(&mut self) -> Result<LogId, CodecError> {
        Ok(log_id(self.u64()?, self.u64()?))
    }

    pub(crate) fn vote(&mut self) -> Result<Vote, CodecError> {
        let leader_id = LeaderId { term: self.u64()?, voted_for: self.u64()? };
        Ok(Vote { leader_id, committed: self.bool()? })
    }

    pub(crate) fn membership(&mut self) -> Result<Membership, CodecError> {
        let configs = self.count(2, "the number of configurations")?;
        let configs = (0..configs)
            .map(|_| {
                let voters = self.count(MEMBERS_MAX, "the number of voters")?;
                (0..voters).map(|_| self.u64()).collect::<Result<BTreeSet<u64>, _>>()
            })
            .collect::<Result<Vec<_>, _>>()?;
        let members = self.count(MEMBERS_MAX, "the number of members")?;
        let members = (0..members)
            .map(|_| Ok((self.u64()?, Member { address: self.text()?, directory: self.uuid()? })))
            .collect::<Result<BTreeMap<u64, Member>, CodecError>>()?;
        if configs.is_empty() && members.is_empty() {
            return Ok(Membership::default());
        }
        Membership::new(configs, members).map_err(|error| CodecError::Membership(error.to_string()))
    }

    pub(crate) fn snapshot_meta(&mut self) -> Result<SnapshotMeta, CodecError> {
        let last_log_id = self.option(Self::log_id)?;
        let at = self.option(Self::log_id)?;
        Ok(SnapshotMeta { last_log_id, last_membership: StoredMembership::new(at, self.membership()?) })
    }

    pub(crate) fn entry(&mut self) -> Result<Entry, CodecError> {
        let at = self.log_id()?;
        let payload: Payload = match self.u8()? {
            0 => EntryPayload::Blank,
            1 => {
                let base = self.i64()?;
                let count = self.u32()?;
                let records = (0..count)
                    .map(|_| Ok(MetadataRecord::decode(self.slice()?)?))
                    .collect::<Result<Vec<_>, CodecError>>()?;
                EntryPayload::Normal(Change { base, records: Arc::new(records) })
            }
            2 => EntryPayload::Membership(self.membership()?),
            _ => return Err(CodecError::Range("the kind of an entry")),
        };
        Ok(Entry::new(at, payload))
    }

    pub(crate) fn end(&self) -> Result<(), CodecError> {
        if self.0.is_empty() { Ok(()) } else { Err(CodecError::Rest(self.0.len())) }
    }
}

/// Writes what [`Reader`] reads.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(crate) fn bool(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A length or a count; what does not fit is refused by the reader.
    pub(crate) fn count(&mut self, value: usize) -> &mut Self {
        self.u32(u32::try_from(value).unwrap_or(u32::MAX))
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn i64(&mut self, value: i64) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn uuid(&mut self, value: Uuid) -> &mut Self {
        self.0.extend_from_slice(value.as_bytes());
        self
    }

    pub(crate) fn slice(&mut self, value: &[u8]) -> &mut Self {
        self.count(value.len());
        self.0.extend_from_slice(value);
        self
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        self.slice(value.as_bytes())
    }

    pub(crate) fn option<T>(
        &mut self,
        value: Option<&T>,
        write: impl for<'a> FnOnce(&'a mut Self, &T) -> &'a mut Self,
    ) -> &mut Self {
        self.bool(value.is_some());
        match value {
            Some(value) => write(self, value),
            None => self,
        }
    }

    pub(crate) fn log_id(&mut self, value: &LogId) -> &mut Self {
        self.u64(value.committed_leader_id().term).u64(value.index())
    }

    pub(crate) fn vote(&mut self, value: &Vote) -> &mut Self {
        self.u64(value.leader_id().term).u64(value.leader_id().voted_for).bool(value.is_committed())
    }

    pub(crate) fn membership(&mut self, value: &Membership) -> &mut Self {
        self.count(value.get_joint_config().len());
        for voters in value.get_joint_config() {
            self.count(voters.len());
            for voter in voters {
                self.u64(*voter);
            }
        }
        self.count(value.nodes().count());
        for (id, member) in value.nodes() {
            self.u64(*id).text(&member.address).uuid(member.directory);
        }
        self
    }

    pub(crate) fn snapshot_meta(&mut self, value: &SnapshotMeta) -> &mut Self {
        self.option(value.last_log_id.as_ref(), Self::log_id)
            .option(value.last_membership.log_id().as_ref(), Self::log_id)
            .membership(value.last_membership.membership())
    }

    pub(crate) fn entry(&mut self, value: &Entry) -> Result<(), RecordError> {
        self.log_id(&value.log_id());
        match &value.payload {
            EntryPayload::Blank => {
                self.u8(0);
            }
            EntryPayload::Normal(change) => {
                self.u8(1).i64(change.base).count(change.records.len());
                for record in change.records.iter() {
                    self.slice(&record.encode()?);
                }
            }
            EntryPayload::Membership(membership) => {
                self.u8(2).membership(membership);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> Membership {
        let member = |port: u16| Member { address: format!("h:{port}"), directory: Uuid::new_v4() };
        Membership::new(
            vec![[1, 2, 3].into(), [1, 2].into()],
            BTreeMap::from([(1, member(1)), (2, member(2)), (3, member(3)), (9, member(9))]),
        )
        .unwrap()
    }

    #[test]
    fn entries_survive_their_bytes() {
        let record = MetadataRecord::Cluster { cluster_id: "c".to_owned() };
        let change = Change { base: 7, records: Arc::new(vec![record.clone(), record]) };
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Normal(change),
            EntryPayload::Membership(membership()),
            EntryPayload::Membership(Membership::default()),
        ] {
            let entry = Entry::new(log_id(3, 4), payload);
            let mut writer = Writer::default();
            writer.entry(&entry).unwrap();
            let mut reader = Reader(&writer.0);
            assert_eq!(reader.entry().unwrap(), entry);
            reader.end().unwrap();
            for cut in 0..writer.0.len() {
                assert!(Reader(&writer.0[..cut]).entry().is_err(), "{cut} of {}", writer.0.len());
            }
        }
    }

    #[test]
    fn votes_and_snapshot_metas_survive_their_bytes() {
        let vote = Vote::new_committed(5, 2);
        let meta = SnapshotMeta {
            last_log_id: Some(log_id(1, 2)),
            last_membership: StoredMembership::new(Some(log_id(1, 1)), membership()),
        };
        let mut writer = Writer::default();
        writer.vote(&vote).snapshot_meta(&meta).snapshot_meta(&SnapshotMeta::default());
        let mut reader = Reader(&writer.0);
        assert_eq!(reader.vote().unwrap(), vote);
        assert_eq!(reader.snapshot_meta().unwrap(), meta);
        assert_eq!(reader.snapshot_meta().unwrap(), SnapshotMeta::default());
        reader.end().unwrap();
    }
}
