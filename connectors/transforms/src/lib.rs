//! filter, rename, mask, route, cast, insert_field, unwrap.
