//! Which names are meant: patterns with `*` and `?`, and `!` before those that are left out.

use std::fmt;

/// Patterns in the order in which they were given. A name is taken if one without `!` fits it and none with `!` does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    taken: Vec<Pattern>,
    left_out: Vec<Pattern>,
}

/// One pattern: `*` stands for any characters, `?` for one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern(String);

/// A pattern that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Nothing, or nothing after the `!`.
    #[error("an empty pattern fits nothing")]
    Empty,
    /// A character that no name has.
    #[error(
        "`{pattern}` has `{character}`, which no name has: only `*` and `?` stand for others, and `!` stands first"
    )]
    Character {
        /// The pattern.
        pattern: String,
        /// The character.
        character: char,
    },
}

impl Filter {
    /// Reads patterns.
    ///
    /// # Errors
    /// [`FilterError`], of the first pattern that is wrong.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        for pattern in patterns {
            let pattern = pattern.as_ref();
            let (list, name) = match pattern.strip_prefix('!') {
                Some(name) => (&mut filter.left_out, name),
                None => (&mut filter.taken, pattern),
            };
            if name.is_empty() {
                return Err(FilterError::Empty);
            }
            if let Some(character) =
                name.chars().find(|c| matches!(c, '!' | '(' | ')' | '[' | ']' | '|' | '\\'))
            {
                return Err(FilterError::Character { pattern: pattern.to_owned(), character });
            }
            list.push(Pattern(name.to_owned()));
        }
        Ok(filter)
    }

    /// Whether a name is taken.
    #[must_use]
    pub fn takes(&self, name: &str) -> bool {
        let any = |list: &[Pattern]| list.iter().any(|pattern| pattern.fits(name));
        any(&self.taken) && !any(&self.left_out)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taken = self.taken.iter().map(|pattern| pattern.0.clone());
        let left_out = self.left_out.iter().map(|pattern| format!("!{}", pattern.0));
        f.write_str(&taken.chain(left_out).collect::<Vec<_>>().join(", "))
    }
}

impl Pattern {
    /// Goes back to the last `*` where it got stuck: as many steps as both lengths multiplied, at most.
    fn fits(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, n));
                    p += 1;
                }
                Some(c) if *c == b'?' || *c == name[n] => {
                    p += 1;
                    n += 1;
                }
                _ => match star {
                    None => return false,
                    Some((at, from)) => {
                        star = Some((at, from + 1));
                        p = at + 1;
                        n = from + 1;
                    }
                },
            }
        }
        pattern[p..].iter().all(|c| *c == b'*')
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    fn takes(patterns: &[&str], name: &str) -> bool {
        Filter::new(patterns).unwrap().takes(name)
    }

    #[test]
    fn names_are_taken_by_patterns_and_left_out_by_those_with_a_mark() {
        assert!(takes(&["shop.*", "!*.internal"], "shop.orders"));
        assert!(!takes(&["shop.*", "!*.internal"], "shop.orders.internal"));
        assert!(!takes(&["!*.internal", "shop.*"], "shop.a.internal"), "their order does not matter");
        assert!(!takes(&["shop.*"], "shopping"), "a dot is a dot");
        assert!(!takes(&["!a"], "b"), "what nothing takes is not taken");
        assert!(!takes(&[], "b"));
        assert!(takes(&["*"], "anything") && takes(&["a?c"], "abc") && !takes(&["a?c"], "ac"));
        assert!(takes(&["*a*b*c"], "xxaxxbxxbc") && !takes(&["*a*b*c"], "xxaxxbxxb"));
        assert!(takes(&["ab**"], "ab"));
    }

    #[test]
    fn a_pattern_that_cannot_be_meant_is_refused() {
        assert_eq!(Filter::new(["a", "!"]), Err(FilterError::Empty));
        assert_eq!(Filter::new([""]), Err(FilterError::Empty));
        let error = Filter::new(["a.(b|c)"]).unwrap_err();
        assert!(error.to_string().contains("`a.(b|c)` has `(`"), "{error}");
        assert!(Filter::new(["a!b"]).is_err());
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        let pattern = "*a".repeat(40) + "b";
        assert!(!takes(&[&pattern], &"a".repeat(249)));
    }

    #[test]
    fn it_is_shown_as_it_was_given() {
        assert_eq!(Filter::new(["!x", "a*"]).unwrap().to_string(), "a*, !x");
    }
}
