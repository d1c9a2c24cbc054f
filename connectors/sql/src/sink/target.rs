//! `table:` of an SQL sink: which table a topic's records go to.

use std::borrow::Cow;
use std::fmt;

use towpath_api::EventSchema;
use towpath_api::names::{RenderError, Template, TemplateError};

use crate::name::TableName;
use crate::quote::Dialect;

/// Why a text is no table template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Nothing between two dots, or nothing at all.
    #[error("a part of the name is empty")]
    EmptyPart,
    /// A quote was opened and not closed.
    #[error("a double quote is not closed")]
    OpenQuote,
    /// More parts than schema and table.
    #[error("a table has at most two parts, schema and table; quote a part that holds a dot")]
    TooManyParts,
    /// SQLite has no schemas.
    #[error("only the table can be named here; quote a name that holds a dot")]
    NoSchemas,
    /// Braces and variables.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// A table's name with variables: `{topic}`, `{topic.N}`, `{pipeline}` and those of the records' schema (`{schema}`,
/// `{table}` …). Literal text follows the database's quoting; a dot in it separates schema and table. What a variable
/// stands for is taken as it is, so that a name with dots, quotes or capitals stays one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetTemplate {
    schema: Option<Template>,
    table: Template,
    text: String,
}

impl TargetTemplate {
    /// Reads `text` in `dialect`'s quoting.
    ///
    /// # Errors
    /// [`TargetError`] says what is wrong.
    pub fn parse(text: &str, dialect: Dialect) -> Result<Self, TargetError> {
        let parts = split(text, dialect)?;
        let template = |part: &String| match part.as_str() {
            "" => Err(TargetError::EmptyPart),
            part => Ok(Template::parse(part)?),
        };
        let (schema, table) = match parts.as_slice() {
            [table] => (None, template(table)?),
            [_, _] if dialect == Dialect::Sqlite => return Err(TargetError::NoSchemas),
            [schema, table] => (Some(template(schema)?), template(table)?),
            _ => return Err(TargetError::TooManyParts),
        };
        Ok(Self { schema, table, text: text.to_owned() })
    }

    /// The table of the records of `schema` in `topic`.
    ///
    /// # Errors
    /// [`RenderError::Unknown`] when a variable has no value for these records.
    pub fn render(
        &self,
        pipeline: &str,
        topic: &str,
        schema: &EventSchema,
    ) -> Result<TableName, RenderError> {
        let variable = |name: &str| match schema.variables().get(name) {
            Some(value) => Some(Cow::Owned(value.clone())),
            None if name == "pipeline" => Some(Cow::Owned(pipeline.to_owned())),
            None => None,
        };
        let part = |template: &Template| template.render_for_topic(topic, variable);
        Ok(TableName { schema: self.schema.as_ref().map(part).transpose()?, table: part(&self.table)? })
    }

    /// The one table that is meant, if there are no variables.
    #[must_use]
    pub fn fixed(&self) -> Option<TableName> {
        let part = |template: &Template| match template.variables().next() {
            Some(_) => None,
            None => template.render(|_| None).ok(),
        };
        let schema = match &self.schema {
            Some(template) => Some(part(template)?),
            None => None,
        };
        Some(TableName { schema, table: part(&self.table)? })
    }
}

/// The text that was parsed.
impl fmt::Display for TargetTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Where a character of a template stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Plain,
    Quoted,
    Variable { quoted: bool },
}

/// Splits at dots outside of quotes and variables, takes the quotes away and folds what is not in them.
fn split(text: &str, dialect: Dialect) -> Result<Vec<String>, TargetError> {
    let mut parts = vec![String::new()];
    let mut place = Place::Plain;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let push = |parts: &mut Vec<String>, character: char| {
            if let Some(part) = parts.last_mut() {
                part.push(character);
            }
        };
        match (place, character) {
            (Place::Plain | Place::Quoted, '{' | '}') => {
                push(&mut parts, character);
                // A doubled brace means itself, for the template as well.
                if characters.next_if_eq(&character).is_some() {
                    push(&mut parts, character);
                } else if character == '{' {
                    place = Place::Variable { quoted: place == Place::Quoted };
                }
            }
            (Place::Variable { quoted }, '}') => {
                push(&mut parts, character);
                place = if quoted { Place::Quoted } else { Place::Plain };
            }
            (Place::Variable { .. }, _) => push(&mut parts, character),
            (Place::Plain, '"') => place = Place::Quoted,
            (Place::Quoted, '"') if characters.next_if_eq(&'"').is_some() => push(&mut parts, '"'),
            (Place::Quoted, '"') => place = Place::Plain,
            (Place::Quoted, _) => push(&mut parts, character),
            (Place::Plain, '.') => parts.push(String::new()),
            (Place::Plain, _) => {
                for folded in dialect.fold(character.encode_utf8(&mut [0; 4])).chars() {
                    push(&mut parts, folded);
                }
            }
        }
    }
    if place == Place::Quoted || place == (Place::Variable { quoted: true }) {
        return Err(TargetError::OpenQuote);
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use towpath_api::RowSchema;

    fn rendered(template: &str, topic: &str) -> TableName {
        let schema = EventSchema::new("x", Arc::new(RowSchema::default()))
            .with_variables([("table".to_owned(), "Odd \"T\".x".to_owned())].into());
        TargetTemplate::parse(template, Dialect::Postgres).unwrap().render("p", topic, &schema).unwrap()
    }

    fn table(table: &str) -> TableName {
        TableName { schema: None, table: table.into() }
    }

    #[test]
    fn variables_are_one_identifier_whatever_they_hold() {
        assert_eq!(rendered("{topic.2}", "shop.public.Odd_x20_N_xe4_me_x2e_x"), table("Odd Näme.x"));
        assert_eq!(rendered("{topic}", "shop.public.orders"), table("shop.public.orders"));
        assert_eq!(rendered("{topic.1}.{table}", "shop.public.o"), TableName::new("public", "Odd \"T\".x"));
        assert_eq!(rendered("Archive.{topic.2}_OLD", "a.b.C"), TableName::new("archive", "C_old"));
        assert_eq!(
            rendered("\"Archive.X\".\"a\"\"{topic.2}\"", "a.b.c"),
            TableName::new("Archive.X", "a\"c")
        );
        assert_eq!(rendered("{pipeline}{{x}}", "t"), table("p{x}"));
    }

    #[test]
    fn fixed_names_are_known() {
        let fixed = |text| TargetTemplate::parse(text, Dialect::Postgres).unwrap().fixed();
        assert_eq!(fixed("public.\"Orders\""), Some(TableName::new("public", "Orders")));
        assert_eq!(fixed("public.{topic}"), None);
    }

    #[test]
    fn wrong_templates_say_what_is_wrong() {
        let error = |text, dialect| TargetTemplate::parse(text, dialect).unwrap_err();
        assert_eq!(error("", Dialect::Postgres), TargetError::EmptyPart);
        assert_eq!(error("a.", Dialect::Postgres), TargetError::EmptyPart);
        assert_eq!(error("\"a", Dialect::Postgres), TargetError::OpenQuote);
        assert_eq!(error("a.b.c", Dialect::Postgres), TargetError::TooManyParts);
        assert_eq!(error("a.b", Dialect::Sqlite), TargetError::NoSchemas);
        assert!(matches!(error("{a", Dialect::Postgres), TargetError::Template(_)));
    }
}
