//! Where in a text personal data stand.

use std::ops::Range;

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `someone@example.com`
    Email,
    /// 13 to 19 digits, possibly in groups, whose check digit is right.
    Card,
    /// An international bank account number whose check digits are right.
    Iban,
}

/// Which kinds are looked for.
#[derive(Debug, Clone, Copy)]
pub struct Kinds {
    pub email: bool,
    pub card: bool,
    pub iban: bool,
}

/// What a byte may be part of.
mod class {
    /// A name before the `@` of an address.
    pub(super) const LOCAL: u8 = 1;
    /// A host's name.
    pub(super) const HOST: u8 = 2;
    /// A word: letters and digits, and whatever is not ASCII.
    pub(super) const WORD: u8 = 4;
    pub(super) const DIGIT: u8 = 8;
    pub(super) const UPPER: u8 = 16;

    /// By byte: looking into a table costs the same everywhere.
    pub(super) const OF: [u8; 256] = {
        let mut of = [0; 256];
        let mut byte = 0_usize;
        while byte < 256 {
            let ascii = byte as u8;
            if ascii.is_ascii_alphanumeric() {
                of[byte] |= LOCAL | HOST | WORD;
            }
            if byte >= 0x80 {
                of[byte] |= WORD;
            }
            if ascii.is_ascii_digit() {
                of[byte] |= DIGIT;
            }
            if ascii.is_ascii_uppercase() {
                of[byte] |= UPPER;
            }
            byte += 1;
        }
        let others = b".!#$%&'*+/=?^_`{|}~-";
        let mut at = 0;
        while at < others.len() {
            of[others[at] as usize] |= LOCAL;
            at += 1;
        }
        of[b'.' as usize] |= HOST;
        of[b'-' as usize] |= HOST;
        of
    };
}

fn is(byte: u8, classes: u8) -> bool {
    class::OF[byte as usize] & classes != 0
}

/// Where the bytes of these classes that begin at `at` end.
fn end_of(bytes: &[u8], at: usize, classes: u8) -> usize {
    let mut end = at;
    while end < bytes.len() && is(bytes[end], classes) {
        end += 1;
    }
    end
}

/// All finds in order; none overlaps another.
pub fn find(text: &str, kinds: Kinds) -> Vec<(Range<usize>, Kind)> {
    let mut found = Vec::new();
    find_into(text, kinds, &mut found);
    found
}

/// As [`find`], behind what `found` has.
pub fn find_into(text: &str, kinds: Kinds, found: &mut Vec<(Range<usize>, Kind)>) {
    let bytes = text.as_bytes();
    let email = kinds.email && bytes.contains(&b'@');
    let (mut at, mut local_end) = (0, 0);
    while at < bytes.len() {
        if at >= local_end {
            local_end = end_of(bytes, at, class::LOCAL);
        }
        let first = bytes[at];
        let mut end = None;
        if email && local_end > at && bytes.get(local_end) == Some(&b'@') {
            end = email_at(bytes, at, local_end).map(|end| (end, Kind::Email));
        }
        if end.is_none() && kinds.iban && is(first, class::UPPER) {
            end = iban_at(bytes, at).map(|end| (end, Kind::Iban));
        }
        if end.is_none() && kinds.card && is(first, class::DIGIT) {
            end = card_at(bytes, at).map(|end| (end, Kind::Card));
        }
        match end {
            Some((end, kind)) => {
                found.push((at..end, kind));
                at = end;
            }
            // What begins within a word does not begin there.
            None => at = end_of(bytes, at, class::WORD).max(at + 1),
        }
    }
}

/// The end of an address whose name is from `at` to `local_end`, where the `@` is.
fn email_at(bytes: &[u8], at: usize, local_end: usize) -> Option<usize> {
    if local_end - at > 64 {
        return None;
    }
    let host = local_end + 1;
    let mut end = end_of(bytes, host, class::HOST).min(host + 255);
    // A full stop ends a sentence, not a name.
    while end > host && !bytes[end - 1].is_ascii_alphanumeric() {
        end -= 1;
    }
    let name = &bytes[host..end];
    let top = name.rsplit(|byte| *byte == b'.').next()?;
    let sound = name.contains(&b'.') && top.len() >= 2 && top.iter().all(u8::is_ascii_alphabetic);
    sound.then_some(end)
}

/// Digits from `at` on, with single spaces or hyphens between them: the first 20, how many, and where they end.
fn digits_at(bytes: &[u8], at: usize) -> ([u8; 20], usize, usize) {
    let (mut digits, mut count, mut end, mut next) = ([0; 20], 0, at, at);
    while let Some(byte) = bytes.get(next) {
        if is(*byte, class::DIGIT) {
            digits[count] = byte - b'0';
            count += 1;
            end = next + 1;
        } else if !matches!(byte, b' ' | b'-') || end != next || count == 0 {
            break;
        }
        if count == digits.len() {
            break;
        }
        next += 1;
    }
    (digits, count, end)
}

/// The end of a card number that begins at `at`.
fn card_at(bytes: &[u8], at: usize) -> Option<usize> {
    let (digits, count, end) = digits_at(bytes, at);
    let goes_on = bytes.get(end).is_some_and(u8::is_ascii_alphanumeric);
    if !(13..=19).contains(&count) || goes_on {
        return None;
    }
    let digits = &digits[..count];
    (digits.iter().any(|digit| *digit != 0) && luhn(digits)).then_some(end)
}

/// ISO/IEC 7812: every second digit from the right counts double.
fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, digit)| match (index % 2, u32::from(*digit)) {
            (0, digit) => digit,
            (_, digit) if digit > 4 => digit * 2 - 9,
            (_, digit) => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// The longest IBAN.
const IBAN_MAX: usize = 34;

/// The end of an IBAN that begins at `at` (ISO 13616), possibly in groups.
fn iban_at(bytes: &[u8], at: usize) -> Option<usize> {
    let head = bytes.get(at..at + 4)?;
    if !head[..2].iter().all(u8::is_ascii_uppercase) || !head[2..].iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (mut letters, mut count, mut next) = ([0; IBAN_MAX], 0, at);
    let mut best = None;
    while let Some(byte) = bytes.get(next) {
        next += 1;
        if is(*byte, class::DIGIT | class::UPPER) {
            letters[count] = *byte;
            count += 1;
        } else if *byte != b' ' || !count.is_multiple_of(4) {
            break;
        }
        let ends = bytes.get(next).is_none_or(|byte| !byte.is_ascii_alphanumeric());
        if ends && count >= 15 && checks(&letters[..count]) {
            best = Some(next);
        }
        if count == IBAN_MAX {
            break;
        }
    }
    // A space that was read past the last group is none of it.
    best.map(|end| if bytes[end - 1] == b' ' { end - 1 } else { end })
}

/// The first four go last, letters become numbers, and the whole leaves one when divided by 97.
fn checks(letters: &[u8]) -> bool {
    let turned = letters[4..].iter().chain(&letters[..4]);
    let rest = turned.fold(0_u32, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        byte => (rest * 100 + u32::from(byte - b'A') + 10) % 97,
    });
    rest == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finds(text: &str) -> Vec<(&str, Kind)> {
        let all = Kinds { email: true, card: true, iban: true };
        find(text, all).into_iter().map(|(range, kind)| (&text[range], kind)).collect()
    }

    #[test]
    fn finds_what_it_looks_for_and_nothing_else() {
        assert_eq!(
            finds("Zoë <zoe.b+x@mail.example.co.uk>. Or bob@example.com."),
            [("zoe.b+x@mail.example.co.uk", Kind::Email), ("bob@example.com", Kind::Email)]
        );
        assert_eq!(finds("4111 1111 1111 1111, 4111-1111-1111-1112"), [("4111 1111 1111 1111", Kind::Card)]);
        assert_eq!(finds("x4111111111111111 41111111111111110000000"), []);
        assert_eq!(
            finds(
                "to DE89 3704 0044 0532 0130 00 and GB82WEST12345698765432, not DE88 3704 0044 0532 0130 00"
            ),
            [("DE89 3704 0044 0532 0130 00", Kind::Iban), ("GB82WEST12345698765432", Kind::Iban)]
        );
        assert_eq!(finds("a@b, @example.com, user@localhost, x@y.1, 0000 0000 0000 0000"), []);
        assert_eq!(finds(""), []);
    }
}
