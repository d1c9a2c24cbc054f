//! The transform.

use towpath_sdk::{
    Batch, Config, Descriptor, Element, Error, OptionSpec, Output, Problem, Record, Row, RowWriter, Scalar,
    Transform, Type, Value,
};

use super::find::{Kind, Kinds, find};

/// Masks personal data in text fields; keys stay as they are, since equal keys must stay equal.
#[derive(Debug)]
pub struct PiiMask {
    kinds: Kinds,
    fields: Vec<String>,
    keep_last: usize,
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
        })
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Output<'_>) -> Result<(), Error> {
        for record in batch.records() {
            self.record(record, out);
        }
        Ok(())
    }
}

impl PiiMask {
    fn record(&self, record: Record<'_>, out: &mut Output<'_>) {
        let (before, after) = (record.before(), record.after());
        let mut rewrite = out.rewrite(record);
        if let Some(row) = before.filter(|row| self.touches(row)) {
            rewrite.before(|out| self.row(row, out));
        }
        if let Some(row) = after.filter(|row| self.touches(row)) {
            rewrite.after(|out| self.row(row, out));
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

    fn touches(&self, row: &Row<'_>) -> bool {
        let found = |text| !find(text, self.kinds).is_empty();
        (0..row.len()).any(|index| self.text(row, index).is_some_and(found))
    }

    fn row(&self, row: Row<'_>, out: &mut RowWriter<'_>) {
        for index in 0..row.len() {
            match self.text(&row, index) {
                Some(text) => out.text(&masked(text, self.kinds, self.keep_last)),
                None => out.value(row.get(index)),
            }
        }
    }
}

/// The text with what is found in it hidden; the last characters of numbers stay.
pub fn masked(text: &str, kinds: Kinds, keep_last: usize) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut done = 0;
    for (range, kind) in find(text, kinds) {
        masked.push_str(&text[done..range.start]);
        let found = &text[range.clone()];
        done = range.end;
        let kept = match kind {
            Kind::Email => found.find('@').unwrap_or_default(),
            Kind::Card | Kind::Iban => found.len().saturating_sub(keep_last),
        };
        let (hidden, shown) = found.split_at(kept);
        masked.extend(hidden.chars().map(|letter| if matches!(letter, ' ' | '-') { letter } else { '*' }));
        masked.push_str(shown);
    }
    masked.push_str(&text[done..]);
    masked
}

#[cfg(test)]
mod tests {
    use super::*;
    use towpath_sdk::Setting;

    #[test]
    fn masks_as_the_options_say() {
        let detect = |words: &[&str]| Setting::Texts(words.iter().map(|word| (*word).to_owned()).collect());
        let text = "zoe@example.com paid with 4111 1111 1111 1111";
        let all =
            Config::of([("detect", detect(&["email", "card", "iban"])), ("keep_last", Setting::Integer(4))]);
        let mask = PiiMask::open(&all).unwrap();
        assert_eq!(masked(text, mask.kinds, mask.keep_last), "***@example.com paid with **** **** **** 1111");
        let none = Config::of([("detect", detect(&["card"])), ("keep_last", Setting::Integer(0))]);
        let mask = PiiMask::open(&none).unwrap();
        assert_eq!(masked(text, mask.kinds, mask.keep_last), "zoe@example.com paid with **** **** **** ****");
        let twice = Config::of([("fields", detect(&["a", "b", "a"]))]);
        assert_eq!(PiiMask::check(&twice)[0].path, "fields[2]");
    }
}
