//! Quoting, type mapping and statement building shared by the SQL sources and sinks.
