//! The replication stream: a thread that reads it in large pieces, and the records that come out of it.

mod feed;
mod records;
mod toast;

pub(crate) use feed::Feed;
pub(crate) use records::{Need, Records, Selected};
pub(crate) use toast::fetch_toast;
