//! Files as a source: lines or JSON lines, once or followed through rotation.
