//! Seeded, rate-limited synthetic records.
