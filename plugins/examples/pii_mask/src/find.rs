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

/// All finds in order; none overlaps another.
pub fn find(text: &str, kinds: Kinds) -> Vec<(Range<usize>, Kind)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let email = || kinds.email.then(|| email_at(bytes, at)).flatten().map(|end| (end, Kind::Email));
        let card = || kinds.card.then(|| card_at(bytes, at)).flatten().map(|end| (end, Kind::Card));
        let iban = || kinds.iban.then(|| iban_at(bytes, at)).flatten().map(|end| (end, Kind::Iban));
        match email().or_else(iban).or_else(card) {
            Some((end, kind)) => {
                found.push((at..end, kind));
                at = end;
            }
            // What begins within a word does not begin there.
            None => at += word_at(bytes, at).max(1),
        }
    }
    found
}

/// The length of the word at `at`: letters and digits.
fn word_at(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte >= 0x80).count()
}

fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".!#$%&'*+/=?^_`{|}~-".contains(&byte)
}

/// The end of an address that begins at `at`.
fn email_at(bytes: &[u8], at: usize) -> Option<usize> {
    let local = bytes[at..].iter().take(65).take_while(|byte| is_local(**byte)).count();
    if local == 0 || local > 64 || bytes.get(at + local) != Some(&b'@') {
        return None;
    }
    let host = at + local + 1;
    let length = bytes[host..]
        .iter()
        .take(255)
        .take_while(|byte| byte.is_ascii_alphanumeric() || b".-".contains(byte));
    let mut end = host + length.count();
    // A full stop ends a sentence, not a name.
    while end > host && !bytes[end - 1].is_ascii_alphanumeric() {
        end -= 1;
    }
    let name = &bytes[host..end];
    let top = name.rsplit(|byte| *byte == b'.').next()?;
    let sound = name.contains(&b'.') && top.len() >= 2 && top.iter().all(u8::is_ascii_alphabetic);
    sound.then_some(end)
}

/// Digits from `at` on, with single spaces or hyphens between them, and where they end.
fn digits_at(bytes: &[u8], at: usize, most: usize) -> (Vec<u8>, usize) {
    let (mut digits, mut end, mut next) = (Vec::new(), at, at);
    while let Some(byte) = bytes.get(next) {
        if byte.is_ascii_digit() {
            digits.push(byte - b'0');
            end = next + 1;
        } else if !matches!(byte, b' ' | b'-') || end != next || digits.is_empty() {
            break;
        }
        if digits.len() > most {
            break;
        }
        next += 1;
    }
    (digits, end)
}

/// The end of a card number that begins at `at`.
fn card_at(bytes: &[u8], at: usize) -> Option<usize> {
    if !bytes[at].is_ascii_digit() {
        return None;
    }
    let (digits, end) = digits_at(bytes, at, 19);
    let goes_on = bytes.get(end).is_some_and(u8::is_ascii_alphanumeric);
    let sound = (13..=19).contains(&digits.len()) && !goes_on && digits.iter().any(|digit| *digit != 0);
    (sound && luhn(&digits)).then_some(end)
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

/// The end of an IBAN that begins at `at` (ISO 13616), possibly in groups.
fn iban_at(bytes: &[u8], at: usize) -> Option<usize> {
    let head = bytes.get(at..at + 4)?;
    if !head[..2].iter().all(u8::is_ascii_uppercase) || !head[2..].iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (mut letters, mut next) = (Vec::new(), at);
    let mut best = None;
    while let Some(byte) = bytes.get(next) {
        next += 1;
        if byte.is_ascii_digit() || byte.is_ascii_uppercase() {
            letters.push(*byte);
        } else if *byte != b' ' || !letters.len().is_multiple_of(4) {
            break;
        }
        let ends = bytes.get(next).is_none_or(|byte| !byte.is_ascii_alphanumeric());
        if ends && (15..=34).contains(&letters.len()) && checks(&letters) {
            best = Some(next);
        }
        if letters.len() == 34 {
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
