//! The messages of PostgreSQL's `pgoutput` plugin, protocol version 1, text format (the manual's chapter "Logical
//! Replication Message Formats"). Pure: bytes in, borrowed messages out; every length is checked (R10).

use towpath_types::limits::SCHEMA_FIELDS_MAX;

use super::cells::{Cells, Span};
use super::lsn::Lsn;

/// Bytes that are no message of protocol version 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a replication message cannot be read: {0}")]
pub(crate) struct Malformed(&'static str);

const SHORT: Malformed = Malformed("it is cut short");

/// Which columns of the old row a change tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Old {
    /// None.
    Untold,
    /// Those of the replica identity; the others are shown as NULL and mean nothing.
    Key,
    /// All (`REPLICA IDENTITY FULL`).
    Full,
}

/// One column of a [`RelationMessage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ColumnMessage<'a> {
    /// Whether it belongs to the replica identity.
    pub(crate) identity: bool,
    pub(crate) name: &'a str,
    pub(crate) type_oid: u32,
    pub(crate) type_modifier: i32,
}

/// The shape of a table, sent before its first change and whenever the server believes it may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RelationMessage<'a> {
    pub(crate) oid: u32,
    pub(crate) schema: &'a str,
    pub(crate) table: &'a str,
    /// `d`efault, `n`othing, `f`ull, `i`ndex.
    pub(crate) identity: u8,
    pub(crate) columns: Vec<ColumnMessage<'a>>,
}

/// A message. Rows lie in the [`Decoder`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    Begin {
        commit_lsn: Lsn,
        commit_time_us: i64,
        xid: u32,
    },
    Commit {
        commit_lsn: Lsn,
        end_lsn: Lsn,
    },
    Relation(RelationMessage<'a>),
    Insert {
        oid: u32,
    },
    Update {
        oid: u32,
        old: Old,
    },
    Delete {
        oid: u32,
        old: Old,
    },
    Truncate {
        oids: TruncatedTables<'a>,
    },
    /// Origin, type and logical messages: nothing that capture needs.
    Other,
}

/// The tables of a TRUNCATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TruncatedTables<'a>(&'a [[u8; 4]]);

impl TruncatedTables<'_> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().map(|oid| u32::from_be_bytes(*oid))
    }
}

/// Takes messages apart; keeps where the cells of the last row lie, so that nothing is allocated per row.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    old: Vec<Span>,
    new: Vec<Span>,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, _) = self.bytes[self.at..].split_first_chunk::<N>().ok_or(SHORT)?;
        self.at += N;
        Ok(*array)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    fn lsn(&mut self) -> Result<Lsn, Malformed> {
        self.array().map(|bytes| Lsn(u64::from_be_bytes(bytes)))
    }

    fn text(&mut self) -> Result<&'a str, Malformed> {
        let rest = &self.bytes[self.at..];
        let end = memchr::memchr(0, rest).ok_or(SHORT)?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| Malformed("a name is not UTF-8"))
    }

    fn tuple(&mut self, spans: &mut Vec<Span>) -> Result<(), Malformed> {
        spans.clear();
        for _ in 0..self.u16()? {
            spans.push(match self.byte()? {
                b'n' => Span::NULL,
                b'u' => Span::UNCHANGED,
                b't' => {
                    let length = self.u32()? as usize;
                    let end =
                        self.at.checked_add(length).filter(|end| *end <= self.bytes.len()).ok_or(SHORT)?;
                    let span = Span::new(self.at, end);
                    self.at = end;
                    span
                }
                _ => return Err(Malformed("a value has an unknown format")),
            });
        }
        Ok(())
    }

    fn relation(&mut self) -> Result<RelationMessage<'a>, Malformed> {
        let oid = self.u32()?;
        let schema = self.text()?;
        let table = self.text()?;
        let identity = self.byte()?;
        let count = usize::from(self.u16()?);
        if count > SCHEMA_FIELDS_MAX {
            return Err(Malformed("a table has more columns than any table can have"));
        }
        let mut columns = Vec::with_capacity(count.min(self.bytes.len() / 10 + 1));
        for _ in 0..count {
            columns.push(ColumnMessage {
                identity: self.byte()? & 1 != 0,
                name: self.text()?,
                type_oid: self.u32()?,
                type_modifier: self.u32()? as i32,
            });
        }
        // The system catalogs' schema is sent as an empty name.
        let schema = if schema.is_empty() { "pg_catalog" } else { schema };
        Ok(RelationMessage { oid, schema, table, identity, columns })
    }
}

impl Decoder {
    /// Reads one message. `bytes` must be below 4 GiB, which the connection's bound on messages ensures.
    pub(crate) fn decode<'a>(&mut self, bytes: &'a [u8]) -> Result<Message<'a>, Malformed> {
        let mut reader = Reader { bytes, at: 0 };
        Ok(match reader.byte()? {
            b'I' => {
                let oid = reader.u32()?;
                if reader.byte()? != b'N' {
                    return Err(Malformed("an insert has no new row"));
                }
                reader.tuple(&mut self.new)?;
                Message::Insert { oid }
            }
            b'U' => {
                let oid = reader.u32()?;
                let mut marker = reader.byte()?;
                let old = self.old_row(&mut reader, marker)?;
                if old != Old::Untold {
                    marker = reader.byte()?;
                }
                if marker != b'N' {
                    return Err(Malformed("an update has no new row"));
                }
                reader.tuple(&mut self.new)?;
                Message::Update { oid, old }
            }
            b'D' => {
                let oid = reader.u32()?;
                let marker = reader.byte()?;
                match self.old_row(&mut reader, marker)? {
                    Old::Untold => return Err(Malformed("a delete has no old row")),
                    old => Message::Delete { oid, old },
                }
            }
            b'B' => Message::Begin {
                commit_lsn: reader.lsn()?,
                commit_time_us: reader.i64()?,
                xid: reader.u32()?,
            },
            b'C' => {
                reader.byte()?;
                Message::Commit { commit_lsn: reader.lsn()?, end_lsn: reader.lsn()? }
            }
            b'R' => Message::Relation(reader.relation()?),
            b'T' => {
                let count = reader.u32()? as usize;
                reader.byte()?;
                let (oids, rest) = bytes[reader.at..].as_chunks::<4>();
                if oids.len() != count || !rest.is_empty() {
                    return Err(Malformed("a truncate's tables do not fit its count"));
                }
                Message::Truncate { oids: TruncatedTables(oids) }
            }
            b'O' | b'Y' | b'M' => Message::Other,
            _ => return Err(Malformed("its type is unknown in protocol version 1")),
        })
    }

    fn old_row(&mut self, reader: &mut Reader<'_>, marker: u8) -> Result<Old, Malformed> {
        let old = match marker {
            b'K' => Old::Key,
            b'O' => Old::Full,
            _ => return Ok(Old::Untold),
        };
        reader.tuple(&mut self.old)?;
        Ok(old)
    }

    /// The new row of the insert or update that was decoded from `bytes`.
    pub(crate) fn new_cells<'a>(&'a self, bytes: &'a [u8]) -> Cells<'a> {
        Cells::new(bytes, &self.new)
    }

    /// The old row of the update or delete that was decoded from `bytes`, if it told one.
    pub(crate) fn old_cells<'a>(&'a self, bytes: &'a [u8]) -> Cells<'a> {
        Cells::new(bytes, &self.old)
    }
}

#[cfg(test)]
mod tests {
    use super::super::cells::Cell;
    use super::*;

    fn tuple(cells: &[Option<&str>]) -> Vec<u8> {
        let mut bytes = (cells.len() as u16).to_be_bytes().to_vec();
        for cell in cells {
            match cell {
                None => bytes.push(b'n'),
                Some("\u{1}toast") => bytes.push(b'u'),
                Some(text) => {
                    bytes.push(b't');
                    bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
                    bytes.extend_from_slice(text.as_bytes());
                }
            }
        }
        bytes
    }

    fn update() -> Vec<u8> {
        let mut bytes = b"U\0\0\0\x07O".to_vec();
        bytes.extend(tuple(&[Some("1"), Some("old"), None]));
        bytes.push(b'N');
        bytes.extend(tuple(&[Some("2"), Some("\u{1}toast"), Some("")]));
        bytes
    }

    fn relation() -> Vec<u8> {
        let mut bytes = b"R\0\0\0\x07public\0Odd \xc3\xa4\0d\0\x02".to_vec();
        bytes.extend_from_slice(b"\x01id\0\0\0\0\x17\xff\xff\xff\xff");
        bytes.extend_from_slice(b"\0name\0\0\0\0\x19\0\0\0\x05");
        bytes
    }

    #[test]
    fn an_update_with_its_old_row_is_read() {
        let bytes = update();
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(&bytes), Ok(Message::Update { oid: 7, old: Old::Full }));
        let (old, new) = (decoder.old_cells(&bytes), decoder.new_cells(&bytes));
        assert_eq!((old.get(0), old.get(2)), (Cell::Text(b"1"), Cell::Null));
        assert_eq!(
            (new.get(0), new.get(1), new.get(2)),
            (Cell::Text(b"2"), Cell::Unchanged, Cell::Text(b""))
        );
        assert_eq!((new.len(), new.get(3)), (3, Cell::Unchanged));
    }

    #[test]
    fn a_relation_is_read() {
        let bytes = relation();
        let Ok(Message::Relation(relation)) = Decoder::default().decode(&bytes) else {
            panic!("no relation")
        };
        assert_eq!((relation.schema, relation.table, relation.identity), ("public", "Odd ä", b'd'));
        let id = ColumnMessage { identity: true, name: "id", type_oid: 23, type_modifier: -1 };
        assert_eq!(relation.columns[0], id);
        assert_eq!(relation.columns[1].type_modifier, 5);
    }

    #[test]
    fn transactions_and_truncates_are_read() {
        let mut decoder = Decoder::default();
        let mut begin = b"B".to_vec();
        begin.extend_from_slice(&9_u64.to_be_bytes());
        begin.extend_from_slice(&(-5_i64).to_be_bytes());
        begin.extend_from_slice(&77_u32.to_be_bytes());
        assert_eq!(
            decoder.decode(&begin),
            Ok(Message::Begin { commit_lsn: Lsn(9), commit_time_us: -5, xid: 77 })
        );
        let mut commit = b"C\0".to_vec();
        commit.extend_from_slice(&9_u64.to_be_bytes());
        commit.extend_from_slice(&12_u64.to_be_bytes());
        commit.extend_from_slice(&0_i64.to_be_bytes());
        assert_eq!(decoder.decode(&commit), Ok(Message::Commit { commit_lsn: Lsn(9), end_lsn: Lsn(12) }));
        let truncate = b"T\0\0\0\x02\x01\0\0\0\x07\0\0\0\x09";
        let Ok(Message::Truncate { oids }) = decoder.decode(truncate) else { panic!("no truncate") };
        assert_eq!(oids.iter().collect::<Vec<_>>(), [7, 9]);
        assert!(decoder.decode(b"T\xff\xff\xff\xff\x01\0\0\0\x07").is_err(), "a forged count is refused");
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_an_error_or_a_message_but_no_panic() {
        let mut decoder = Decoder::default();
        for whole in [update(), relation()] {
            for end in 0..whole.len() {
                assert!(decoder.decode(&whole[..end]).is_err(), "cut at {end}");
            }
            for at in 0..whole.len() {
                for value in [0, 1, 0x7f, 0x80, 0xff, b'N', b't'] {
                    let mut forged = whole.clone();
                    forged[at] = value;
                    let _read = decoder.decode(&forged);
                }
            }
        }
        assert!(decoder.decode(b"").is_err());
        assert!(decoder.decode(b"S\0\0\0\0").is_err(), "streamed transactions are protocol version 2");
    }
}
