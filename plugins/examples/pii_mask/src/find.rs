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

fn is(byte: u8, class: u8) -> bool {
    class::OF[byte as usize] & class != 0
}

/// Where the bytes of this class that begin at `at` end. Four at a time: in the sandbox each turn of a loop looks at the
/// clock.
fn end_of(bytes: &[u8], at: usize, class: u8) -> usize {
    let mut end = at;
    while let Some([a, b, c, d]) = bytes.get(end..).and_then(<[u8]>::first_chunk)
        && [a, b, c, d].iter().all(|byte| is(**byte, class))
    {
        end += 4;
    }
    while end < bytes.len() && is(bytes[end], class) {
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

/// The bytes from `at` on; behind the text's end stand zeros.
fn lanes(bytes: &[u8], at: usize) -> u8x16 {
    let bytes = bytes.get(at..).unwrap_or_default();
    match bytes.first_chunk::<LANES>() {
        Some(whole) => u8x16::new(*whole),
        None => {
            let mut lanes = [0; LANES];
            lanes[..bytes.len()].copy_from_slice(bytes);
            u8x16::new(lanes)
        }
    }
}

/// Which bytes are one of the `count` from `first` on.
fn within(bytes: u8x16, first: u8, count: u8) -> u32 {
    let place = bytes - u8x16::splat(first);
    place.simd_eq(place.min(u8x16::splat(count - 1))).to_bitmask()
}

fn equal(bytes: u8x16, byte: u8) -> u32 {
    bytes.simd_eq(u8x16::splat(byte)).to_bitmask()
}

impl Stretch {
    fn of(bytes: u8x16) -> Self {
        let digit = within(bytes, b'0', 10);
        // Upper and lower case differ in one bit.
        let letter = within(bytes | u8x16::splat(b'a' ^ b'A'), b'a', 26);
        Self {
            word: letter | digit | within(bytes, 0x80, 0x80),
            digit,
            upper: within(bytes, b'A', 26),
            at_sign: equal(bytes, b'@'),
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
    for from in (0..bytes.len()).step_by(LANES) {
        let stretch = Stretch::of(lanes(bytes, from));
        let mut candidates = stretch.candidates(within_word, kinds);
        within_word = stretch.word >> (LANES - 1) & 1 == 1;
        while candidates != 0 {
            let at = from + candidates.trailing_zeros() as usize;
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

/// The end of a card number that begins at `at`: digits with single spaces or hyphens between them, and a check digit.
fn card_at(bytes: &[u8], at: usize) -> Option<usize> {
    let Digits { places, length } = Digits::at(bytes, at);
    let end = at + length;
    let goes_on = bytes.get(end).is_some_and(u8::is_ascii_alphanumeric);
    ((13..=19).contains(&places.count_ones()) && !goes_on && luhn(bytes, at, places)).then_some(end)
}

/// Digits in groups.
struct Digits {
    /// Where they are, the first the least bit.
    places: u64,
    /// How many bytes they take, up to the last of them.
    length: usize,
}

/// Stretches that the longest number fits into, with a separator behind each digit.
const STRETCHES: usize = 3;

impl Digits {
    fn at(bytes: &[u8], at: usize) -> Self {
        let (mut digits, mut separators) = (0, 0);
        for stretch in 0..STRETCHES {
            let lanes = lanes(bytes, at + stretch * LANES);
            digits |= u64::from(within(lanes, b'0', 10)) << (stretch * LANES);
            separators |= u64::from(equal(lanes, b' ') | equal(lanes, b'-')) << (stretch * LANES);
        }
        let between = separators & digits << 1 & digits >> 1;
        let length = (digits | between).trailing_ones();
        Self { places: digits & ((1 << length) - 1), length: length as usize }
    }
}

/// ISO/IEC 7812: every second digit from the right counts double, and of what is more than nine then, the two digits
/// are added. All digits at once: a sum is the count of the ones, twos, fours and eights in it.
fn luhn(bytes: &[u8], at: usize, places: u64) -> bool {
    let mut bits = [0_u64; 4];
    for stretch in 0..STRETCHES {
        let lanes = lanes(bytes, at + stretch * LANES);
        for (bit, places) in bits.iter_mut().enumerate() {
            let is_set = (lanes & u8x16::splat(1 << bit)).simd_eq(u8x16::splat(0)).to_bitmask() ^ 0xffff;
            *places |= u64::from(is_set) << (stretch * LANES);
        }
    }
    let [ones, twos, fours, eights] = bits;
    let sum = |of: u64| {
        let counts = bits.iter().enumerate().map(|(bit, places)| (places & of).count_ones() << bit);
        counts.sum::<u32>()
    };
    // Whether an odd number of digits stands at a place and to the right of it.
    let odd = [1, 2, 4, 8, 16, 32].iter().fold(places, |odd, by| odd ^ odd >> by);
    let (once, double) = (places & odd, places & !odd);
    let over_four = double & (eights | fours & (twos | ones));
    let sum = sum(once) + 2 * sum(double) - 9 * over_four.count_ones();
    sum > 0 && sum.is_multiple_of(10)
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
