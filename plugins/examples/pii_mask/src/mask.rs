//! The transform.

use std::ops::Range;

use towpath_sdk::{
    Batch, Config, Descriptor, Element, Error, OptionSpec, Output, Problem, Record, Row, RowEdit, Scalar,
    Transform, Type, Value,
};

use super::find::{Kind, Kinds, find_into};

/// Masks personal data in text fields; keys stay as they are, since equal keys must stay equal.
#[derive(Debug)]
pub struct PiiMask {
    kinds: Kinds,
    fields: Vec<String>,
    keep_last: usize,
    /// Reused from row to row.
    finds: Finds,
    found: Vec<(Range<usize>, Kind)>,
}

impl Transform for PiiMask {
    fn descriptor() -> Descriptor {
        let kinds = Element::one_of(&[
            ("email", "`someone@example.com`: the name is masked, the domain stays"),
            ("card", "card numbers whose check digit is right"),
            ("iban", "bank account numbers whose check digits are right"),
        ]);
        Descriptor::new(
            "pii_mask",
            env!("CARGO_PKG_VERSION"),
            "Masks personal data wherever they stand in text",
        )
        .option(
            OptionSpec::optional("detect", kinds, "What to look for.")
                .many()
                .default_json(r#"["email","card","iban"]"#),
        )
        .option(
            OptionSpec::optional(
                "fields",
                Element::NonEmptyText,
                "Only these fields; without it, every text.",
            )
            .many(),
        )
        .option(
            OptionSpec::optional(
                "keep_last",
                Element::Integer(0, 6),
                "How many of the last characters of card numbers and IBANs stay.",
            )
            .default_json("4"),
        )
    }

    fn check(config: &Config) -> Vec<Problem> {
        let fields = config.texts("fields");
        let twice = (1..fields.len()).filter(|index| fields[..*index].contains(&fields[*index]));
        twice.map(|index| Problem::new(format!("fields[{index}]"), "this field stands here twice")).collect()
    }

    fn open(config: &Config) -> Result<Self, Error> {
        let detect = config.texts("detect");
        let wanted = |kind: &str| detect.iter().any(|word| word == kind);
        Ok(Self {
            kinds: Kinds { email: wanted("email"), card: wanted("card"), iban: wanted("iban") },
            fields: config.texts("fields"),
            keep_last: config.integer("keep_last").and_then(|count| usize::try_from(count).ok()).unwrap_or(4),
            finds: Finds::new(),
            found: Vec::new(),
        })
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Output<'_>) -> Result<(), Error> {
        for record in batch.records() {
            self.record(record, out);
        }
        Ok(())
    }
}

/// What was found in a row: the field, which part of its text is hidden, and what it is.
type Finds = Vec<(usize, Range<usize>, Kind)>;

impl PiiMask {
    fn record(&mut self, record: Record<'_>, out: &mut Output<'_>) {
        let (before, after) = (record.before(), record.after());
        let mut rewrite = out.rewrite(record);
        if before.is_some_and(|row| self.search(&row)) {
            rewrite.before_with(|row| self.mask(row));
        }
        if after.is_some_and(|row| self.search(&row)) {
            rewrite.after_with(|row| self.mask(row));
        }
        rewrite.finish();
    }

    /// The text at a place that is looked at.
    fn text<'a>(&self, row: &Row<'a>, index: usize) -> Option<&'a str> {
        let field = row.fields().get(index)?;
        let wanted = self.fields.is_empty() || self.fields.contains(&field.name);
        match row.get(index) {
            Value::Text(text) if wanted && field.ty == Type::from(Scalar::Text) => Some(text),
            _ => None,
        }
    }

    /// Looks at every text of a row; whether there is something to mask.
    fn search(&mut self, row: &Row<'_>) -> bool {
        self.finds.clear();
        for index in 0..row.len() {
            if let Some(text) = self.text(row, index) {
                self.found.clear();
                find_into(text, self.kinds, &mut self.found);
                let hidden =
                    |(range, kind): &(Range<usize>, Kind)| hidden(text, range, *kind, self.keep_last);
                self.finds.extend(self.found.iter().map(|find| (index, hidden(find), find.1)));
            }
        }
        !self.finds.is_empty()
    }

    /// Masks the row that was searched last.
    fn mask(&self, row: &mut RowEdit<'_>) {
        for (field, hidden, kind) in &self.finds {
            row.map_ascii(*field, hidden.clone(), |character| star(*kind, character));
        }
    }
}

/// Which part of what was found is hidden: the last characters of numbers stay, and the domain of an address.
pub fn hidden(text: &str, range: &Range<usize>, kind: Kind, keep_last: usize) -> Range<usize> {
    let end = match kind {
        Kind::Email => text[range.clone()].find('@').map_or(range.end, |at| range.start + at),
        Kind::Card | Kind::Iban => range.end.saturating_sub(keep_last).max(range.start),
    };
    range.start..end
}

/// What stands in the place of a hidden character: numbers keep their groups.
pub fn star(kind: Kind, character: u8) -> u8 {
    match (kind, character) {
        (Kind::Card | Kind::Iban, b' ' | b'-') => character,
        _ => b'*',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::find::find;
    use towpath_sdk::Setting;

    fn masked(text: &str, mask_it: &PiiMask) -> String {
        let mut masked = text.as_bytes().to_vec();
        for (range, kind) in find(text, mask_it.kinds) {
            let hidden = hidden(text, &range, kind, mask_it.keep_last);
            masked[hidden].iter_mut().for_each(|character| *character = star(kind, *character));
        }
        String::from_utf8(masked).unwrap()
    }

    #[test]
    fn masks_as_the_options_say() {
        let detect = |words: &[&str]| Setting::Texts(words.iter().map(|word| (*word).to_owned()).collect());
        let text = "zoe@example.com paid with 4111 1111 1111 1111";
        let all =
            Config::of([("detect", detect(&["email", "card", "iban"])), ("keep_last", Setting::Integer(4))]);
        let opened = PiiMask::open(&all).unwrap();
        assert_eq!(masked(text, &opened), "***@example.com paid with **** **** **** 1111");
        let none = Config::of([("detect", detect(&["card"])), ("keep_last", Setting::Integer(0))]);
        let opened = PiiMask::open(&none).unwrap();
        assert_eq!(masked(text, &opened), "zoe@example.com paid with **** **** **** ****");
        let long = format!("{}@example.com!", "a".repeat(64));
        assert_eq!(
            masked(&long, &PiiMask::open(&Config::of([("detect", detect(&["email"]))])).unwrap()),
            format!("{}@example.com!", "*".repeat(64))
        );
        let twice = Config::of([("fields", detect(&["a", "b", "a"]))]);
        assert_eq!(PiiMask::check(&twice)[0].path, "fields[2]");
    }
}
