//! Properties of the assignors, over members and topics from a seed.
