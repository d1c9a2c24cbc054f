//! The trait of a sink, and the macro that exports it.

use std::collections::BTreeMap;

use crate::{Batch, Config, Descriptor, Error, Problem, Rejection};

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: i32,
}

/// A partition that is now this task's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// Which.
    pub partition: TopicPartition,
    /// The topic's identity: one that was deleted and created again is another one.
    pub topic_id: String,
}

/// The next offset of partitions.
pub type Positions = BTreeMap<TopicPartition, i64>;

/// Records of one partition, in the order of their offsets.
#[derive(Debug)]
pub struct Delivery<'a> {
    /// Where they come from.
    pub partition: TopicPartition,
    /// The topic's identity.
    pub topic_id: String,
    /// The first offset that it covers, including records that were dropped on the way.
    pub first_offset: i64,
    /// The offset after the last that it covers: the position moves here even when there is no record.
    pub next_offset: i64,
    /// The records.
    pub batch: Batch<'a>,
}

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Written {
    /// Whether it is safe, with everything accepted before; otherwise the next flush makes it so.
    pub durable: bool,
    /// Records that cannot be taken, now or ever, by their index. If there is one, nothing of the delivery may count: it
    /// comes again without them.
    pub rejected: Vec<(u32, Rejection)>,
}

impl Written {
    /// Everything is safe.
    #[must_use]
    pub const fn durable() -> Self {
        Self { durable: true, rejected: Vec::new() }
    }

    /// Everything is taken.
    #[must_use]
    pub const fn accepted() -> Self {
        Self { durable: false, rejected: Vec::new() }
    }
}

/// What carries records out.
///
/// Where the target can hold the offsets with the data, in one transaction, everything is there exactly once: write the
/// next offset along, and tell it in [`Sink::assign`].
pub trait Sink: Sized {
    /// Name, version, guarantee and options. Must not depend on time or chance.
    fn descriptor() -> Descriptor;

    /// What is wrong with options that fit their types; all of it at once. Nothing outside can be reached here.
    fn check(config: &Config) -> Vec<Problem> {
        let _ = config;
        Vec::new()
    }

    /// Looks for what is missing in the world, and changes nothing. Returns what it verified, one line each.
    ///
    /// # Errors
    /// Everything that would keep [`Sink::open`] from working.
    fn probe(config: &Config) -> Result<Vec<String>, Vec<Error>> {
        let _ = config;
        Ok(Vec::new())
    }

    /// Opens a task; partitions follow.
    ///
    /// # Errors
    /// What keeps it from working.
    fn open(config: &Config) -> Result<Self, Error>;

    /// Partitions are now this task's. A sink that keeps positions of its own fences older owners here, and returns the
    /// next offset that it wants of each; where it returns none, the group's committed offset counts.
    ///
    /// # Errors
    /// When the target fails.
    fn assign(&mut self, added: &[Assigned]) -> Result<Positions, Error> {
        let _ = added;
        Ok(Positions::new())
    }

    /// Takes a delivery.
    ///
    /// # Errors
    /// When the target fails: nothing of it counts, and the task is opened again.
    fn write(&mut self, delivery: &Delivery<'_>) -> Result<Written, Error>;

    /// Makes everything accepted safe. Returns the durable next offset of each partition written so far.
    ///
    /// # Errors
    /// When the target fails.
    fn flush(&mut self) -> Result<Positions, Error>;

    /// Partitions are no longer this task's; called after a flush.
    ///
    /// # Errors
    /// When the target fails.
    fn revoke(&mut self, removed: &[TopicPartition]) -> Result<(), Error> {
        let _ = removed;
        Ok(())
    }

    /// Ends the task; called after a flush unless the task failed.
    ///
    /// # Errors
    /// When the target cannot be left cleanly; nothing is lost by that.
    fn close(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// Exports a type that implements [`Sink`] as the sink of this component. Once in a crate.
#[macro_export]
macro_rules! export_sink {
    ($sink:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings_sink::{Exported, SinkExport};

            struct Component;

            std::thread_local! {
                static INSTANCE: ::core::cell::RefCell<::core::option::Option<$sink>> =
                    const { ::core::cell::RefCell::new(::core::option::Option::None) };
            }

            impl SinkExport for Component {
                type Sink = $sink;

                fn with<R>(run: impl ::core::ops::FnOnce(&mut ::core::option::Option<$sink>) -> R) -> R {
                    INSTANCE.with(|instance| run(&mut instance.borrow_mut()))
                }
            }

            type Root = Exported<Component>;
    $crate::bindings_sink::export_sink_world!(Root with_types_in $crate::bindings_sink);
        };
    };
}
