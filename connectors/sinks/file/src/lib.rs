//! JSON-lines files as a sink, rolled, exactly once by offset-named files.
