//! Look-alike integers and names as types, and every bound in one place.
