//! How a batch becomes bytes in a topic and back: JSON with and without schemas, raw.
