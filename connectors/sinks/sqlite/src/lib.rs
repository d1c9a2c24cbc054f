//! SQLite as a sink: upsert or append, exactly once.
