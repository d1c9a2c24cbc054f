//! `towpath schema`

use towpath_api::ConnectorKind;

use crate::failure::Failure;
use crate::output::print_json;
use crate::registry::built_in;

pub(super) fn run() -> Result<(), Failure> {
    let registry = built_in();
    let kinds = [ConnectorKind::Source, ConnectorKind::Sink, ConnectorKind::Transform];
    let descriptors: Vec<_> = kinds.into_iter().flat_map(|kind| registry.descriptors(kind)).collect();
    print_json(&towpath_config::json_schema(&descriptors))
}
