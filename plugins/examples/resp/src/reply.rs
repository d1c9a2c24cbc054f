//! Replies.

/// Bytes of a reply's one text that are taken, and how deep arrays may lie in each other.
const TEXT_BYTES_MAX: usize = 32 * 1024 * 1024;
const ITEMS_MAX: usize = 1_000_000;
const DEPTH_MAX: u32 = 8;

/// What the server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`
    Status(String),
    /// `-ERR …`
    Error(String),
    /// A number.
    Integer(i64),
    /// A text.
    Text(Vec<u8>),
    /// No text, or no array.
    Nil,
    /// Several.
    Array(Vec<Reply>),
}

impl Reply {
    /// The bytes of a text.
    #[must_use]
    pub fn text(&self) -> Option<&[u8]> {
        if let Self::Text(bytes) = self { Some(bytes) } else { None }
    }

    /// A text, a status or a number, as text.
    #[must_use]
    pub fn as_string(&self) -> Option<String> {
        match self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
            Self::Status(text) => Some(text.clone()),
            Self::Integer(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// The items of an array.
    #[must_use]
    pub fn array(&self) -> Option<&[Reply]> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }

    /// What stands behind `name` in an array of names and values.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Reply> {
        let pairs = self.array()?.chunks_exact(2);
        pairs.filter(|pair| pair[0].text() == Some(name.as_bytes())).map(|pair| &pair[1]).next()
    }
}

/// The reply at the beginning of `bytes`, and how long it is; `None` if it is not all there yet.
///
/// # Errors
/// What is there is no reply.
pub fn parse(bytes: &[u8]) -> Result<Option<(Reply, usize)>, &'static str> {
    let mut reader = Reader { bytes, at: 0 };
    Ok(reader.reply(0)?.map(|reply| (reply, reader.at)))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn line(&mut self) -> Option<&'a [u8]> {
        let rest = self.bytes.get(self.at..)?;
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        self.at += end + 2;
        Some(&rest[..end])
    }

    /// A length; `None` is that of nothing.
    fn length(line: &[u8], max: usize) -> Result<Option<usize>, &'static str> {
        match number(line)? {
            -1 => Ok(None),
            length => match usize::try_from(length) {
                Ok(length) if length <= max => Ok(Some(length)),
                _ => Err("it has a length that cannot be"),
            },
        }
    }

    fn reply(&mut self, depth: u32) -> Result<Option<Reply>, &'static str> {
        if depth > DEPTH_MAX {
            return Err("its arrays lie too deep in each other");
        }
        let Some(line) = self.line() else { return Ok(None) };
        let Some((kind, rest)) = line.split_first() else { return Err("it has an empty line") };
        let words = || String::from_utf8_lossy(rest).into_owned();
        Ok(Some(match kind {
            b'+' => Reply::Status(words()),
            b'-' => Reply::Error(words()),
            b':' => Reply::Integer(number(rest)?),
            b'$' => {
                let Some(length) = Self::length(rest, TEXT_BYTES_MAX)? else { return Ok(Some(Reply::Nil)) };
                let Some(text) = self.bytes.get(self.at..self.at + length + 2) else { return Ok(None) };
                self.at += length + 2;
                Reply::Text(text[..length].to_vec())
            }
            b'*' => {
                let Some(count) = Self::length(rest, ITEMS_MAX)? else { return Ok(Some(Reply::Nil)) };
                let mut items = Vec::with_capacity(count.min(1024));
                for _ in 0..count {
                    let Some(item) = self.reply(depth + 1)? else { return Ok(None) };
                    items.push(item);
                }
                Reply::Array(items)
            }
            _ => return Err("it begins as no reply does"),
        }))
    }
}

fn number(line: &[u8]) -> Result<i64, &'static str> {
    std::str::from_utf8(line).ok().and_then(|text| text.parse().ok()).ok_or("it has a number that is none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_however_they_come_in_pieces() {
        let bytes = b"*4\r\n$3\r\na\r\n\r\n:-7\r\n$-1\r\n*2\r\n+OK\r\n-ERR no\r\nrest";
        let text = |text: &str| Reply::Text(text.as_bytes().to_vec());
        let inner = Reply::Array(vec![Reply::Status("OK".to_owned()), Reply::Error("ERR no".to_owned())]);
        let expected = Reply::Array(vec![text("a\r\n"), Reply::Integer(-7), Reply::Nil, inner]);
        let whole = bytes.len() - 4;
        assert_eq!(parse(bytes), Ok(Some((expected, whole))));
        for length in 0..whole {
            assert_eq!(parse(&bytes[..length]), Ok(None), "{length}");
        }
        let pairs = Reply::Array(vec![text("length"), Reply::Integer(3), text("groups"), Reply::Nil]);
        assert_eq!(pairs.field("length"), Some(&Reply::Integer(3)));
        assert_eq!(pairs.field("none"), None);
    }

    #[test]
    fn what_is_no_reply_is_told() {
        for bytes in
            [&b"HTTP/1.1 400\r\n"[..], b"$99999999999\r\n", b"$-2\r\n", b":x\r\n", b"*9999999\r\n", b"\r\n"]
        {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
        assert!(parse(&b"*1\r\n".repeat(20)).is_err());
    }
}
