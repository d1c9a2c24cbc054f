//! What there is.

use std::sync::Arc;

use towpath_api::TransformFactory;

use super::{Cast, Filter, InsertField, Mask, Rename, Route, Unwrap};

/// Every transform of this crate.
#[must_use]
pub fn factories() -> Vec<Arc<dyn TransformFactory>> {
    vec![
        Arc::new(Unwrap::default()),
        Arc::new(Filter::default()),
        Arc::new(Rename::default()),
        Arc::new(Mask::default()),
        Arc::new(Route::default()),
        Arc::new(Cast::default()),
        Arc::new(InsertField::default()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use towpath_api::ConnectorKind;

    /// The same suite that plugins pass.
    #[test]
    fn every_transform_keeps_the_contract() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (name, options) in [
            ("unwrap", json!({})),
            ("filter", json!({"field": "id", "value": 3, "keep": false})),
            ("rename", json!({"fields": {"email": "mail"}})),
            ("mask", json!({"fields": ["email", "f7"], "with": "hash"})),
            ("cast", json!({"fields": {"balance": "string"}})),
            ("insert_field", json!({"name": "origin", "value": "here"})),
        ] {
            let all = factories();
            let factory = all.iter().find(|factory| factory.descriptor().name == name).unwrap();
            let config =
                towpath_api::RawConfig::with_defaults(&factory.descriptor().options, options).unwrap();
            runtime
                .block_on(towpath_api::conformance::transform(&**factory, &config))
                .unwrap_or_else(|violation| panic!("{name}: {violation}"));
        }
    }

    #[test]
    fn every_transform_describes_itself() {
        let mut names = Vec::new();
        for factory in factories() {
            let descriptor = factory.descriptor();
            assert_eq!(descriptor.kind, ConnectorKind::Transform);
            assert!(!descriptor.summary.is_empty());
            for option in &descriptor.options.options {
                assert!(
                    option.doc.ends_with(['.', ' ', ')']),
                    "{}.{}: {}",
                    descriptor.name,
                    option.name,
                    option.doc
                );
            }
            assert!(descriptor.options.get("only").is_some());
            names.push(descriptor.name.clone());
        }
        assert_eq!(names, ["unwrap", "filter", "rename", "mask", "route", "cast", "insert_field"]);
    }
}
