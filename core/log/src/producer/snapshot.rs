//! Snapshots of the producers' state, in Kafka's format.

use std::path::Path;

use super::{BatchMark, ProducerEntry, ProducerState};
use crate::disk::Disk;
use crate::error::LogError;
use crate::storage::OpenMode;

const VERSION: i16 = 1;
const HEADER_BYTES: usize = 10;
const ENTRY_BYTES: usize = 46;

impl ProducerState {
    /// Writes a snapshot; the caller syncs it before the recovery point moves.
    pub(crate) fn write_snapshot(&self, disk: &Disk, path: &Path) -> Result<(), LogError> {
        let mut out = Vec::with_capacity(HEADER_BYTES + self.producers.len() * ENTRY_BYTES);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(self.producers.len() as i32).to_be_bytes());
        for (id, entry) in &self.producers {
            let mark = entry.marks().last();
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&entry.epoch.to_be_bytes());
            out.extend_from_slice(&mark.map_or(-1, |mark| mark.last_sequence).to_be_bytes());
            out.extend_from_slice(&mark.map_or(-1, |mark| mark.last_offset).to_be_bytes());
            out.extend_from_slice(&mark.map_or(0, |mark| mark.offset_delta).to_be_bytes());
            out.extend_from_slice(&entry.last_timestamp.to_be_bytes());
            out.extend_from_slice(&entry.coordinator_epoch.to_be_bytes());
            out.extend_from_slice(&entry.txn_first_offset.to_be_bytes());
        }
        let crc = crc32c::crc32c(&out[6..]);
        out[2..6].copy_from_slice(&crc.to_be_bytes());
        let file = disk.open_write(path, OpenMode::Truncate)?;
        disk.wrote("write", path, file.write_at([&out, &[]], 0))
    }

    /// Reads a snapshot; `None` if it cannot be trusted (it is then ignored, and the log replayed).
    pub(crate) fn read_snapshot(disk: &Disk, path: &Path) -> Result<Option<Self>, LogError> {
        let Some(content) = disk.read_small(path)? else { return Ok(None) };
        Ok(Self::decode(&content))
    }

    fn decode(content: &[u8]) -> Option<Self> {
        let mut at = 0;
        let version = i16::from_be_bytes(take(content, &mut at)?);
        let crc = u32::from_be_bytes(take(content, &mut at)?);
        if version != VERSION || crc32c::crc32c(&content[at..]) != crc {
            return None;
        }
        let count = usize::try_from(i32::from_be_bytes(take(content, &mut at)?)).ok()?;
        if content.len() - at != count.checked_mul(ENTRY_BYTES)? {
            return None;
        }
        let mut state = Self::default();
        for _ in 0..count {
            let id = i64::from_be_bytes(take(content, &mut at)?);
            let mut entry = ProducerEntry::new(i16::from_be_bytes(take(content, &mut at)?));
            let mark = BatchMark {
                last_sequence: i32::from_be_bytes(take(content, &mut at)?),
                last_offset: i64::from_be_bytes(take(content, &mut at)?),
                offset_delta: i32::from_be_bytes(take(content, &mut at)?),
                timestamp: i64::from_be_bytes(take(content, &mut at)?),
            };
            entry.last_timestamp = mark.timestamp;
            entry.last_offset = mark.last_offset;
            entry.coordinator_epoch = i32::from_be_bytes(take(content, &mut at)?);
            entry.txn_first_offset = i64::from_be_bytes(take(content, &mut at)?);
            if mark.last_offset >= 0 {
                entry.push(mark);
            }
            if entry.is_open() {
                state.open.insert(entry.txn_first_offset);
            }
            state.producers.insert(id, entry);
        }
        Some(state)
    }
}

fn take<const N: usize>(content: &[u8], at: &mut usize) -> Option<[u8; N]> {
    let part = content.get(*at..)?.first_chunk::<N>()?;
    *at += N;
    Some(*part)
}
