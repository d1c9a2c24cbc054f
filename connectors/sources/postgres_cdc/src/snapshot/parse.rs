//! The text format of COPY TO STDOUT, row by row, without an allocation per row.

use super::super::cells::{Cells, Span};

/// A line that is none of COPY's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a copied row cannot be read: {0}")]
pub(crate) struct MalformedRow(&'static str);

/// The row that was read last; its first column, the `ctid`, is taken out.
#[derive(Debug, Default)]
pub(crate) struct CopyRow {
    spans: Vec<Span>,
    unescaped: Vec<u8>,
    is_unescaped: bool,
}

impl CopyRow {
    /// Reads `line` (one CopyData message): block and tuple of its `ctid`; the other columns are in
    /// [`CopyRow::cells`].
    pub(crate) fn read(&mut self, line: &[u8]) -> Result<(u32, u16), MalformedRow> {
        let body = line.strip_suffix(b"\n").ok_or(MalformedRow("it has no end"))?;
        self.spans.clear();
        self.is_unescaped = memchr::memchr(b'\\', body).is_some();
        let ctid_end = memchr::memchr(b'\t', body).unwrap_or(body.len());
        if self.is_unescaped {
            self.unescape(body.get(ctid_end + 1..).unwrap_or_default())?;
        } else if ctid_end < body.len() {
            let mut from = ctid_end + 1;
            for tab in memchr::memchr_iter(b'\t', &body[from..]) {
                let end = ctid_end + 1 + tab;
                self.spans.push(Span::new(from, end));
                from = end + 1;
            }
            self.spans.push(Span::new(from, body.len()));
        }
        ctid(&body[..ctid_end])
    }

    fn unescape(&mut self, body: &[u8]) -> Result<(), MalformedRow> {
        self.unescaped.clear();
        for field in body.split(|byte| *byte == b'\t') {
            if field == br"\N" {
                self.spans.push(Span::NULL);
                continue;
            }
            let start = self.unescaped.len();
            let mut rest = field;
            while let Some(at) = memchr::memchr(b'\\', rest) {
                self.unescaped.extend_from_slice(&rest[..at]);
                let escaped = *rest.get(at + 1).ok_or(MalformedRow("an escape is cut short"))?;
                self.unescaped.push(match escaped {
                    b'b' => 8,
                    b'f' => 12,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'v' => 11,
                    other => other,
                });
                rest = &rest[at + 2..];
            }
            self.unescaped.extend_from_slice(rest);
            self.spans.push(Span::new(start, self.unescaped.len()));
        }
        Ok(())
    }

    /// The columns after the `ctid` of the row that was read from `line`.
    pub(crate) fn cells<'a>(&'a self, line: &'a [u8]) -> Cells<'a> {
        Cells::new(if self.is_unescaped { &self.unescaped } else { line }, &self.spans)
    }
}

/// `(block,tuple)`.
fn ctid(text: &[u8]) -> Result<(u32, u16), MalformedRow> {
    const WRONG: MalformedRow = MalformedRow("its ctid is none");
    let inner = text.strip_prefix(b"(").and_then(|text| text.strip_suffix(b")")).ok_or(WRONG)?;
    let comma = memchr::memchr(b',', inner).ok_or(WRONG)?;
    let number = |digits: &[u8]| {
        if digits.is_empty() {
            return Err(WRONG);
        }
        digits.iter().try_fold(0_u32, |value, digit| {
            let digit = u32::from(digit.wrapping_sub(b'0'));
            if digit > 9 {
                return Err(WRONG);
            }
            value.checked_mul(10).and_then(|value| value.checked_add(digit)).ok_or(WRONG)
        })
    };
    let tuple = u16::try_from(number(&inner[comma + 1..])?).map_err(|_| WRONG)?;
    Ok((number(&inner[..comma])?, tuple))
}

#[cfg(test)]
mod tests {
    use super::super::super::cells::Cell;
    use super::*;

    #[test]
    fn plain_rows_are_read_in_place() {
        let mut row = CopyRow::default();
        let line = b"(12,7)\t42\t\tlast\n";
        assert_eq!(row.read(line), Ok((12, 7)));
        let cells = row.cells(line);
        assert_eq!(cells.len(), 3);
        let all: Vec<_> = (0..3).map(|index| cells.get(index)).collect();
        assert_eq!(all, [Cell::Text(b"42"), Cell::Text(b""), Cell::Text(b"last")]);
        assert_eq!(row.read(b"(4294967295,1)\n"), Ok((u32::MAX, 1)));
        assert_eq!(row.cells(b"").len(), 0);
    }

    #[test]
    fn escapes_and_nulls_are_undone() {
        let mut row = CopyRow::default();
        let line = b"(0,1)\t\\N\ta\\tb\\\\N\\n\t\\\\N\tplain\n";
        assert_eq!(row.read(line), Ok((0, 1)));
        let cells = row.cells(line);
        let all: Vec<_> = (0..4).map(|index| cells.get(index)).collect();
        assert_eq!(all, [Cell::Null, Cell::Text(b"a\tb\\N\n"), Cell::Text(b"\\N"), Cell::Text(b"plain")]);
    }

    #[test]
    fn garbage_is_refused() {
        let mut row = CopyRow::default();
        let wrong: [&[u8]; 8] = [
            b"",
            b"\n",
            b"(1,2)",
            b"(1,)\n",
            b"(1,70000)\n",
            b"(4294967296,1)\n",
            b"1,2\tx\n",
            b"(1,2)\tx\\\n",
        ];
        for line in wrong {
            assert!(row.read(line).is_err(), "{}", String::from_utf8_lossy(line));
        }
    }
}
