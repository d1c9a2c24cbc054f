//! Where in a text personal data stand.

use std::ops::Range;

use wide::u8x16;

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

/// How many bytes are looked at together.
const LANES: usize = 16;

/// What the bytes of a stretch are: a bit for each, the first the least.
struct Stretch {
    word: u32,
    digit: u32,
    upper: u32,
    at_sign: u32,
}

impl Stretch {
    fn of(bytes: [u8; LANES]) -> Self {
        let bytes = u8x16::new(bytes);
        let within = |bytes: u8x16, first: u8, count: u8| {
            let place = bytes - u8x16::splat(first);
            place.simd_eq(place.min(u8x16::splat(count - 1))).to_bitmask()
        };
        let digit = within(bytes, b'0', 10);
        // Upper and lower case differ in one bit.
        let letter = within(bytes | u8x16::splat(b'a' ^ b'A'), b'a', 26);
        Self {
            word: letter | digit | within(bytes, 0x80, 0x80),
            digit,
            upper: within(bytes, b'A', 26),
            at_sign: bytes.simd_eq(u8x16::splat(b'@')).to_bitmask(),
        }
    }

    /// Where something that is looked for may stand: at the first letter of a word, or around an `@`.
    fn candidates(&self, within_word: bool, kinds: Kinds) -> u32 {
        let starts = self.word & !(self.word << 1 | u32::from(within_word));
        let of = |wanted: bool, places: u32| if wanted { places } else { 0 };
        of(kinds.email, self.at_sign)
            | of(kinds.card, starts & self.digit)
            | of(kinds.iban, starts & self.upper)
    }
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
    // Where the last find ends, and whether the last stretch ended within a word.
    let (mut free, mut within_word) = (0, false);
    for (index, bytes_here) in bytes.chunks(LANES).enumerate() {
        let mut lanes = [0; LANES];
        match bytes_here.first_chunk() {
            Some(whole) => lanes = *whole,
            None => lanes[..bytes_here.len()].copy_from_slice(bytes_here),
        }
        let stretch = Stretch::of(lanes);
        let mut candidates = stretch.candidates(within_word, kinds);
        within_word = stretch.word >> (LANES - 1) & 1 == 1;
        while candidates != 0 {
            let at = index * LANES + candidates.trailing_zeros() as usize;
            candidates &= candidates - 1;
            if at >= free
                && let Some((range, kind)) = find_at(bytes, at, free, kinds)
            {
                free = range.end;
                found.push((range, kind));
            }
        }
    }
}

/// What stands at a candidate; bytes before `free` belong to something else.
fn find_at(bytes: &[u8], at: usize, free: usize, kinds: Kinds) -> Option<(Range<usize>, Kind)> {
    if bytes[at] == b'@' {
        let start = local_before(bytes, at, free);
        let end = (start < at).then(|| host_end(bytes, at)).flatten()?;
        return Some((start..end, Kind::Email));
    }
    let (end, kind) = match bytes[at] {
        b'0'..=b'9' => (card_at(bytes, at)?, Kind::Card),
        _ => (iban_at(bytes, at)?, Kind::Iban),
    };
    // The name of an address may look like a number: it is found at its `@`.
    let local_end = end_of(bytes, at, class::LOCAL);
    let in_email = kinds.email
        && bytes.get(local_end) == Some(&b'@')
        && local_end - at <= LOCAL_MAX
        && host_end(bytes, local_end).is_some();
    (!in_email).then_some((at..end, kind))
}

/// The most bytes of an address's name (RFC 5321, 4.5.3.1).
const LOCAL_MAX: usize = 64;

/// Where the name begins whose `@` is at `at`: not before `free`, and not within a word.
fn local_before(bytes: &[u8], at: usize, free: usize) -> usize {
    let least = free.max(at.saturating_sub(LOCAL_MAX));
    let mut start = at;
    while start > least && is(bytes[start - 1], class::LOCAL) {
        start -= 1;
    }
    while start > free && start < at && is(bytes[start], class::WORD) && is(bytes[start - 1], class::WORD) {
        start += 1;
    }
    start
}

/// The end of an address whose `@` is at `at`, if a host's name follows.
fn host_end(bytes: &[u8], at: usize) -> Option<usize> {
    let host = at + 1;
    let mut end = end_of(bytes, host, class::HOST).min(host + 255);
    // A full stop ends a sentence, not a name.
    while end > host && !bytes[end - 1].is_ascii_alphanumeric() {
        end -= 1;
    }
    // The last part is of letters alone, two at least.
    let mut top = end;
    while top > host && bytes[top - 1].is_ascii_alphabetic() {
        top -= 1;
    }
    (end >= top + 2 && top > host && bytes[top - 1] == b'.').then_some(end)
}

/// The end of a card number that begins at `at`: digits with single spaces or hyphens between them, and the check digit
/// of ISO/IEC 7812, for which every second one from the right counts double.
fn card_at(bytes: &[u8], at: usize) -> Option<usize> {
    // The sum if the last digit counts once, and if it counts double.
    let (mut once, mut double) = (0, 0);
    let (mut count, mut end, mut any) = (0, at, 0);
    for (next, byte) in bytes.iter().enumerate().skip(at) {
        let digit = u32::from(byte.wrapping_sub(b'0'));
        if digit < 10 {
            let doubled = if digit > 4 { digit * 2 - 9 } else { digit * 2 };
            (once, double) = (double + digit, once + doubled);
            any |= digit;
            count += 1;
            end = next + 1;
        } else if !matches!(byte, b' ' | b'-') || end != next {
            break;
        }
        if count > 19 {
            return None;
        }
    }
    let goes_on = bytes.get(end).is_some_and(u8::is_ascii_alphanumeric);
    (count >= 13 && !goes_on && any != 0 && once.is_multiple_of(10)).then_some(end)
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
        if byte.is_ascii_digit() || byte.is_ascii_uppercase() {
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

    /// The rule, without haste: from every place that is not within a word, the first kind that stands there.
    fn slowly(text: &str, kinds: Kinds) -> Vec<(Range<usize>, Kind)> {
        let bytes = text.as_bytes();
        let (mut found, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let local_end = end_of(bytes, at, class::LOCAL);
            let local = kinds.email && (1..=LOCAL_MAX).contains(&(local_end - at));
            let email = local && bytes.get(local_end) == Some(&b'@');
            let end = email.then(|| host_end(bytes, local_end)).flatten().map(|end| (end, Kind::Email));
            let iban = || iban_at(bytes, at).filter(|_| kinds.iban).map(|end| (end, Kind::Iban));
            let card = || {
                card_at(bytes, at)
                    .filter(|_| kinds.card && bytes[at].is_ascii_digit())
                    .map(|end| (end, Kind::Card))
            };
            match end.or_else(iban).or_else(card) {
                Some((end, kind)) => {
                    found.push((at..end, kind));
                    at = end;
                }
                None => at = end_of(bytes, at, class::WORD).max(at + 1),
            }
        }
        found
    }

    #[test]
    fn stretches_find_what_the_rule_finds() {
        let parts = [
            "a",
            "Zoe",
            "x.y",
            "@",
            "@",
            "mail.example.com",
            "b.co",
            "4111111111111111",
            "4111 1111-1111 1111",
            "0",
            "DE89 3704 0044 0532 0130 00",
            "GB82WEST12345698765432",
            " ",
            " ",
            ".",
            "-",
            "é",
            "@@",
            "+",
            ", ",
            "word",
            "abcdefghijklmnopqrstuvwxyz0123456789",
            "\u{1F642}",
        ];
        let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 33) as usize % below
        };
        let mut finds = 0;
        for _ in 0..50_000 {
            let text: String = (0..next(12)).map(|_| parts[next(parts.len())]).collect();
            let kinds = Kinds { email: next(4) > 0, card: next(4) > 0, iban: next(4) > 0 };
            let found = find(&text, kinds);
            assert_eq!(found, slowly(&text, kinds), "{text:?} {kinds:?}");
            finds += found.len();
        }
        assert!(finds > 10_000, "{finds}");
    }
}
