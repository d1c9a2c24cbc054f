//! The derive macro of towpath-wire.
