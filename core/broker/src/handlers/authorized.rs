//! Which operations a client may do, as bits by Kafka's `AclOperation` numbers. There are no ACLs yet: everything.

/// Read, write, create, delete, alter, describe, describe and alter configurations.
pub(super) const TOPIC: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;
/// Create, alter, describe, cluster action, describe and alter configurations, idempotent write.
pub(super) const CLUSTER: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;
/// Read, delete, describe, describe and alter configurations.
pub(super) const GROUP: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;
