//! Transactions under fire: transfers between accounts by consume-transform-produce, lists that are appended to and read
//! in transactions, producers that fight for one transactional id, transactions that take too long; brokers and clients
//! are killed meanwhile. What must hold, whoever is killed:
//!
//! - A transaction's records are all there or none of them (`Torn`, `Lost`), and those of a transaction whose commit
//!   was never asked for are never seen by a reader of what is committed (`AbortedRead`, `DirtyRead`).
//! - Requests are answered exactly once (`RequestLost`, `RequestTwice`), and the accounts' total stays (`Unbalanced`).
//! - No two transactions read each other's writes (`CircularRead`). That writes of two transactions lie before and after
//!   each other in two partitions is no fault: Kafka does not isolate writes from each other.
//! - A fenced producer commits nothing (`Zombie`), and every transaction ends (`Hanging`).

pub mod check;
pub mod history;
#[cfg(test)]
mod tests;
pub mod workload;

pub use check::check;
pub use history::History;
pub use workload::run;
