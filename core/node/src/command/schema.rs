//! `towpath schema`

use crate::failure::Failure;
use crate::output::print_json;
use crate::registry::built_in;

pub(super) fn run() -> Result<(), Failure> {
    print_json(&towpath_config::json_schema(&built_in()))
}
