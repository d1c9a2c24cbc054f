//! Just enough of Rust's grammar to measure functions: comments and literals are masked, then braces are counted.

/// Source text in which comments are blank and literals are filled with `"`; lines stay where they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masked(String);

/// A function with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of its `fn`, from 1.
    pub line: usize,
    /// Lines of its body that hold code: neither blank nor comment, without the braces' own lines.
    pub code_lines: usize,
}

impl Masked {
    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// Masks comments and literals.
#[must_use]
pub fn mask(source: &str) -> Masked {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let end = match (c, chars.get(at + 1)) {
            ('/', Some('/')) => line_comment(&chars, at),
            ('/', Some('*')) => block_comment(&chars, at),
            _ => at,
        };
        if end > at {
            blank(&chars, at, end, ' ', &mut out);
            at = end;
            continue;
        }
        let previous = at.checked_sub(1).and_then(|i| chars.get(i)).copied().unwrap_or(' ');
        match literal(&chars, at, previous) {
            Some(end) => {
                blank(&chars, at, end, '"', &mut out);
                at = end;
            }
            None => {
                out.push(c);
                at += 1;
            }
        }
    }
    Masked(out)
}

fn blank(chars: &[char], from: usize, to: usize, with: char, out: &mut String) {
    for c in chars.get(from..to.min(chars.len())).unwrap_or_default() {
        out.push(if *c == '\n' { '\n' } else { with });
    }
}

fn line_comment(chars: &[char], at: usize) -> usize {
    chars.iter().skip(at).position(|c| *c == '\n').map_or(chars.len(), |n| at + n)
}

fn block_comment(chars: &[char], at: usize) -> usize {
    let mut depth = 0usize;
    let mut i = at;
    while i < chars.len() {
        match (chars.get(i), chars.get(i + 1)) {
            (Some('/'), Some('*')) => {
                depth += 1;
                i += 2;
            }
            (Some('*'), Some('/')) => {
                depth -= 1;
                i += 2;
                if depth == 0 {
                    return i;
                }
            }
            _ => i += 1,
        }
    }
    chars.len()
}

/// The end of the string or character literal that begins here, if one does.
fn literal(chars: &[char], at: usize, previous: char) -> Option<usize> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    match chars.get(at)? {
        '"' => Some(quoted(chars, at + 1, '"')),
        '\'' if previous != 'b' || at < 2 || !chars.get(at - 2).copied().is_some_and(word) => {
            character(chars, at)
        }
        'r' | 'b' | 'c' if !word(previous) => {
            let mut i = at;
            while matches!(chars.get(i), Some('b' | 'c')) {
                i += 1;
            }
            if chars.get(i) != Some(&'r') {
                return None;
            }
            i += 1;
            let hashes = chars.iter().skip(i).take_while(|c| **c == '#').count();
            (chars.get(i + hashes) == Some(&'"')).then(|| raw(chars, i + hashes + 1, hashes))
        }
        _ => None,
    }
}

fn quoted(chars: &[char], mut i: usize, end: char) -> usize {
    while let Some(c) = chars.get(i) {
        match c {
            '\\' => i += 2,
            c if *c == end => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

/// `'x'`, `'\n'`, `'\u{1F}'`, but not the lifetime `'a`.
fn character(chars: &[char], at: usize) -> Option<usize> {
    match (chars.get(at + 1)?, chars.get(at + 2)) {
        ('\\', _) => Some(quoted(chars, at + 1, '\'')),
        (_, Some('\'')) => Some(at + 3),
        _ => None,
    }
}

fn raw(chars: &[char], mut i: usize, hashes: usize) -> usize {
    while i < chars.len() {
        if chars.get(i) == Some(&'"')
            && chars.iter().skip(i + 1).take(hashes).filter(|c| **c == '#').count() == hashes
        {
            return i + 1 + hashes;
        }
        i += 1;
    }
    chars.len()
}

/// All functions with a body, nested ones too.
#[must_use]
pub fn functions(masked: &Masked) -> Vec<Function> {
    let text: Vec<char> = masked.text().chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    let mut line = 1;
    while at < text.len() {
        if text.get(at) == Some(&'\n') {
            line += 1;
        }
        if is_word(&text, at, "fn")
            && let Some((name, after)) = identifier(&text, at + 2)
            && let Some((open, close)) = body(&text, after)
        {
            found.push(Function { name, line, code_lines: code_lines(&text, open, close) });
        }
        at += 1;
    }
    found
}

fn is_word(text: &[char], at: usize, word: &str) -> bool {
    let part = |c: Option<&char>| c.is_some_and(|c| c.is_alphanumeric() || *c == '_');
    let before = at.checked_sub(1).and_then(|i| text.get(i));
    word.chars().enumerate().all(|(i, c)| text.get(at + i) == Some(&c))
        && !part(before)
        && !part(text.get(at + word.len()))
}

fn identifier(text: &[char], mut at: usize) -> Option<(String, usize)> {
    while text.get(at).is_some_and(|c| c.is_whitespace()) {
        at += 1;
    }
    let name: String = text.iter().skip(at).take_while(|c| c.is_alphanumeric() || **c == '_').collect();
    let end = at + name.chars().count();
    (!name.is_empty()).then_some((name, end))
}

/// The positions of a function's outer braces; `None` for a declaration that ends with `;`.
fn body(text: &[char], mut at: usize) -> Option<(usize, usize)> {
    let mut brackets = 0i32;
    let open = loop {
        match text.get(at)? {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            ';' if brackets == 0 => return None,
            '{' if brackets == 0 => break at,
            _ => {}
        }
        at += 1;
    };
    let mut depth = 0i32;
    for (i, c) in text.iter().enumerate().skip(open) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((open, i));
        }
    }
    None
}

fn code_lines(text: &[char], open: usize, close: usize) -> usize {
    let inside: String = text.get(open + 1..close).unwrap_or_default().iter().collect();
    inside.lines().filter(|line| !line.trim().is_empty()).count()
}

/// The items of a file at its outermost level, masked, attributes included.
#[must_use]
pub fn items(masked: &Masked) -> Vec<String> {
    let mut found = Vec::new();
    let mut item = String::new();
    let mut depth = 0i32;
    for c in masked.text().chars() {
        item.push(c);
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        let inner_attribute = c == ']' && item.trim_start().starts_with("#!");
        // `use a::{b};` goes on after its brace, everything else that is braced has ended.
        let ended = c == ';' || inner_attribute || (c == '}' && !head(&item).starts_with("use"));
        if depth == 0 && ended {
            found.push(item.trim().to_owned());
            item.clear();
        }
    }
    if !item.trim().is_empty() {
        found.push(item.trim().to_owned());
    }
    found
}

/// An item without its attributes and visibility.
pub(crate) fn head(item: &str) -> &str {
    let mut rest = item.trim_start();
    while let Some(attribute) = rest.strip_prefix("#[").or_else(|| rest.strip_prefix("#![")) {
        let mut depth = 1i32;
        let end = attribute.char_indices().find_map(|(i, c)| {
            depth += i32::from(c == '[') - i32::from(c == ']');
            (depth == 0).then_some(i + 1)
        });
        rest = attribute.get(end.unwrap_or(attribute.len())..).unwrap_or_default().trim_start();
    }
    if let Some(visible) = rest.strip_prefix("pub") {
        rest = visible.trim_start();
        if rest.starts_with('(') {
            rest = rest.split_once(')').map_or("", |(_, after)| after).trim_start();
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_what_looks_like_code_and_is_none() {
        let source = "let a = \"{ // \\\" }\"; // }\nlet b = '{'; let c: &'static str = r#\"}\"}\"#; /* { /* } */ } */ x";
        let masked = mask(source);
        assert_eq!(masked.text().matches(['{', '}']).count(), 0, "{}", masked.text());
        assert_eq!(masked.text().lines().count(), 2);
        assert!(masked.text().contains("&'static str") && masked.text().ends_with(" x"));
        assert_eq!(mask("b'{' b\"}\" br\"{\" b'\\'' '\\u{1F}'").text().matches(['{', '}']).count(), 0);
    }

    #[test]
    fn counts_lines_of_code_only() {
        let source = "trait T { fn declared(&self) -> [u8; 2]; }\n\
                      fn two<const N: usize>(a: [u8; 3])\nwhere\n    A: B,\n{\n    one();\n\n    // no\n    /* no\n       no */\n    \
                      let f: fn(u8) = |x| { x };\n}\n";
        let found = functions(&mask(source));
        assert_eq!(found, vec![Function { name: "two".to_owned(), line: 2, code_lines: 2 }]);
    }

    #[test]
    fn sees_nested_functions_and_items() {
        let source = "//! Docs.\n#![allow(x)]\nmod a;\npub use a::{B, C};\n#[cfg(test)]\nmod tests {\n fn x() { fn y() {} }\n}\n\
                      pub(crate) fn z() {}\nstatic S: [u8; 1] = [1];";
        let masked = mask(source);
        let names: Vec<_> = functions(&masked).into_iter().map(|f| f.name).collect();
        assert_eq!(names, ["x", "y", "z"]);
        let heads: Vec<_> =
            items(&masked).iter().map(|i| head(i).split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(heads, ["", "mod", "use", "mod", "fn", "static"]);
    }
}
