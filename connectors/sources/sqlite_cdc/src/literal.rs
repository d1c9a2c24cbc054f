//! SQL literals as SQLite's `quote()` writes them: the lossless text form of a row in the outbox.

use std::borrow::Cow;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(Cow<'a, str>),
    Blob(Vec<u8>),
}

/// A text that `quote()` does not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the outbox holds a value that is no SQL literal")]
pub(crate) struct NoLiteral;

/// The literals of a comma-separated list, one after the other.
pub(crate) struct Literals<'a> {
    rest: Option<&'a str>,
}

impl<'a> Literals<'a> {
    pub(crate) fn of(list: &'a str) -> Self {
        Self { rest: Some(list) }
    }

    fn parse(&mut self, text: &'a str) -> Result<Literal<'a>, NoLiteral> {
        let (literal, rest) = match text.as_bytes() {
            [b'\'', ..] => parse_text(text)?,
            [b'X' | b'x', b'\'', ..] => {
                let (bytes, rest) = parse_blob(text)?;
                (Literal::Blob(bytes), rest)
            }
            // A text that `quote()` would have ended at its first NUL.
            [b'T', b'\'', ..] => {
                let (bytes, rest) = parse_blob(text)?;
                (Literal::Text(String::from_utf8(bytes).map_err(|_| NoLiteral)?.into()), rest)
            }
            _ => {
                let end = text.find(',').unwrap_or(text.len());
                (parse_bare(&text[..end])?, &text[end..])
            }
        };
        self.rest = match rest.strip_prefix(',') {
            Some(rest) => Some(rest),
            None if rest.is_empty() => None,
            None => return Err(NoLiteral),
        };
        Ok(literal)
    }
}

impl<'a> Iterator for Literals<'a> {
    type Item = Result<Literal<'a>, NoLiteral>;

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.rest.take()?;
        Some(self.parse(text))
    }
}

fn parse_bare(text: &str) -> Result<Literal<'static>, NoLiteral> {
    if text == "NULL" {
        return Ok(Literal::Null);
    }
    if let Ok(integer) = text.parse() {
        return Ok(Literal::Integer(integer));
    }
    // Infinity is written as 9.0e+999, which reads as infinity again.
    text.parse().map(Literal::Real).map_err(|_| NoLiteral)
}

fn parse_text(text: &str) -> Result<(Literal<'_>, &str), NoLiteral> {
    let body = &text[1..];
    let mut from = 0;
    let mut doubled = false;
    loop {
        let at = from + body[from..].find('\'').ok_or(NoLiteral)?;
        if body[at + 1..].starts_with('\'') {
            doubled = true;
            from = at + 2;
            continue;
        }
        let raw = &body[..at];
        let value = if doubled { Cow::Owned(raw.replace("''", "'")) } else { Cow::Borrowed(raw) };
        return Ok((Literal::Text(value), &body[at + 1..]));
    }
}

fn parse_blob(text: &str) -> Result<(Vec<u8>, &str), NoLiteral> {
    let (digits, rest) = text[2..].split_once('\'').ok_or(NoLiteral)?;
    if digits.len() % 2 != 0 || !digits.is_ascii() {
        return Err(NoLiteral);
    }
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| NoLiteral);
    let bytes = (0..digits.len()).step_by(2).map(byte).collect::<Result<_, _>>()?;
    Ok((bytes, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        let list = "NULL,-5,1.5,'it''s, ok',X'00FF','',9.0e+999,9223372036854775807,X'',T'6100C3BC'";
        let literals: Vec<_> = Literals::of(list).map(Result::unwrap).collect();
        assert_eq!(
            literals,
            [
                Literal::Null,
                Literal::Integer(-5),
                Literal::Real(1.5),
                Literal::Text("it's, ok".into()),
                Literal::Blob(vec![0, 255]),
                Literal::Text("".into()),
                Literal::Real(f64::INFINITY),
                Literal::Integer(i64::MAX),
                Literal::Blob(vec![]),
                Literal::Text("a\0ü".into()),
            ]
        );
    }

    #[test]
    fn what_is_no_literal_is_refused() {
        for bad in ["'open", "X'0", "X'0g'", "word", "", "1,", "'a'b", "X'ä'", "T'FF'", "T'0"] {
            assert!(Literals::of(bad).any(|literal| literal.is_err()), "{bad}");
        }
    }
}
