//! SQLite change data capture: triggers and an outbox table.
