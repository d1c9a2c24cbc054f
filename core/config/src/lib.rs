//! YAML with spans into validated types: problems, secrets, JSON Schema.
