//! PostgreSQL change data capture: consistent snapshot, then logical replication.
