//! The trait of a source, and the macro that exports it.

use std::collections::BTreeMap;

use crate::{Config, Descriptor, Error, Problem, Records};

/// The share of the work that one task does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Task {
    /// From 0.
    pub index: u32,
    /// What [`Source::plan`] wrote for [`Source::open`].
    pub assignment: String,
}

/// How much a poll may return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes; one record may exceed them.
    pub bytes: usize,
    /// Records.
    pub records: usize,
}

/// Whether more can come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polled {
    /// More can come, whether or not something came now.
    Open,
    /// Nothing ever again; said by a poll that brings nothing.
    End,
}

/// How far each source partition (a table, a file, a stream) has been read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offsets {
    places: BTreeMap<String, String>,
}

impl Offsets {
    /// These places of source partitions.
    #[must_use]
    pub fn of(places: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { places: places.into_iter().collect() }
    }

    /// Whether nothing is known: a first start.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The place in a source partition.
    #[must_use]
    pub fn get(&self, partition: &str) -> Option<&str> {
        self.places.get(partition).map(String::as_str)
    }

    /// All source partitions and their places.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.places.iter().map(|(partition, place)| (partition.as_str(), place.as_str()))
    }
}

/// A point in the upstream's own order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// The plugin's own form.
    pub document: String,
    /// What a person reads.
    pub text: String,
}

/// What brings records in.
///
/// Where it has read to is told with the records ([`Records::offset`]) and becomes durable with them: after a crash the
/// source is opened at the offsets of the last poll whose records are durable.
pub trait Source: Sized {
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
    /// Everything that would keep [`Source::open`] from working.
    fn probe(config: &Config) -> Result<Vec<String>, Vec<Error>> {
        let _ = config;
        Ok(Vec::new())
    }

    /// Splits the work into at least one task and at most `tasks_max`; one, unless said otherwise.
    ///
    /// # Errors
    /// When the world must be asked and cannot be.
    fn plan(config: &Config, tasks_max: u32) -> Result<Vec<Task>, Error> {
        let _ = (config, tasks_max);
        Ok(vec![Task::default()])
    }

    /// Opens a task at its stored offsets. Offsets that cannot be read, or no longer exist upstream, are an error, never
    /// a silent beginning anew.
    ///
    /// # Errors
    /// What keeps it from working.
    fn open(config: &Config, task: &Task, offsets: &Offsets) -> Result<Self, Error>;

    /// The next records, as many as `budget` allows. Where there are none it waits a little, up to about 100 ms.
    ///
    /// # Errors
    /// When the upstream fails; the task is opened again later at its stored offsets.
    fn poll(&mut self, budget: Budget, out: &mut Records<'_>) -> Result<Polled, Error>;

    /// These offsets and their records are durable: what lies before may be freed upstream.
    ///
    /// # Errors
    /// When the upstream fails.
    fn commit(&mut self, offsets: &Offsets) -> Result<(), Error> {
        let _ = offsets;
        Ok(())
    }

    /// Where the upstream ends at this moment, if it can tell: what `--until-idle` waits for.
    ///
    /// # Errors
    /// When the upstream fails.
    fn upstream_end(&mut self) -> Result<Option<Position>, Error> {
        Ok(None)
    }

    /// Whether everything up to `end` is covered by `durable`. Nothing outside can be reached here.
    fn has_passed(&self, durable: &Offsets, end: &Position) -> bool {
        let _ = (durable, end);
        false
    }

    /// Where the task stands, for people.
    fn status(&self) -> String {
        "running".to_owned()
    }

    /// Ends the task; what is not committed is read again.
    ///
    /// # Errors
    /// When the upstream cannot be left cleanly; nothing is lost by that.
    fn close(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// Exports a type that implements [`Source`] as the source of this component. Once in a crate.
#[macro_export]
macro_rules! export_source {
    ($source:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings_source::{Exported, SourceExport};

            struct Component;

            std::thread_local! {
                static INSTANCE: ::core::cell::RefCell<::core::option::Option<$source>> =
                    const { ::core::cell::RefCell::new(::core::option::Option::None) };
            }

            impl SourceExport for Component {
                type Source = $source;

                fn with<R>(run: impl ::core::ops::FnOnce(&mut ::core::option::Option<$source>) -> R) -> R {
                    INSTANCE.with(|instance| run(&mut instance.borrow_mut()))
                }
            }

            type Root = Exported<Component>;
    $crate::bindings_source::export_source_world!(Root with_types_in $crate::bindings_source);
        };
    };
}
