//! Record batch v2: views without copying, builder, validation, capped compression.
