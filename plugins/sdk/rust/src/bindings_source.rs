//! Between the generated bindings of the world `source` and what authors see. Compiled for guests only.

use crate::bindings::{self, details, error, not_open, tell_panics, with_schemas};
use crate::{Budget, Config, Offsets, Polled, Position, Records, Source, Task};

#[allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, reason = "generated")]
mod generated {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "source",
        pub_export_macro: true,
        export_macro_name: "export_source_world",
        with: {
            "towpath:plugin/types@0.1.0": crate::bindings::towpath::plugin::types,
            "towpath:plugin/log@0.1.0": crate::bindings::towpath::plugin::log,
            "towpath:plugin/config@0.1.0": crate::bindings::towpath::plugin::config,
            "towpath:plugin/clock@0.1.0": crate::bindings::towpath::plugin::clock,
            "towpath:plugin/random@0.1.0": crate::bindings::towpath::plugin::random,
            "towpath:plugin/schemas@0.1.0": crate::bindings::towpath::plugin::schemas,
        },
        generate_all,
    });
}

pub use generated::*;

use bindings::towpath::plugin::types;
use exports::towpath::plugin::sources;

/// A component with a source in it.
pub trait SourceExport {
    /// The source.
    type Source: Source;

    /// Runs with the instance, which is there once it is open.
    fn with<R>(run: impl FnOnce(&mut Option<Self::Source>) -> R) -> R;
}

/// What the generated traits are implemented for.
pub struct Exported<T>(std::marker::PhantomData<T>);

fn offsets_in(offsets: Vec<sources::Offset>) -> Offsets {
    Offsets::of(offsets.into_iter().filter_map(|it| Some((it.partition, it.place?))))
}

/// Runs with the open instance.
fn open<T: SourceExport, R>(
    run: impl FnOnce(&mut T::Source) -> Result<R, crate::Error>,
) -> Result<R, types::Error> {
    T::with(|instance| match instance {
        Some(source) => run(source).map_err(error),
        None => Err(not_open()),
    })
}

impl<T: SourceExport> sources::Guest for Exported<T> {
    fn descriptor() -> types::Description {
        bindings::description(T::Source::descriptor())
    }

    fn config_spec() -> Vec<types::OptionSpec> {
        bindings::option_specs(T::Source::descriptor())
    }

    fn check_config() -> Vec<types::Problem> {
        tell_panics();
        bindings::problems(T::Source::check(&Config::default()))
    }

    fn promise() -> types::Guarantee {
        bindings::guarantee(&T::Source::descriptor())
    }

    fn check() -> Result<Vec<String>, Vec<types::Error>> {
        tell_panics();
        T::Source::probe(&Config::default()).map_err(|errors| errors.into_iter().map(error).collect())
    }

    fn plan(tasks_max: u32) -> Result<Vec<sources::Task>, types::Error> {
        tell_panics();
        let planned = T::Source::plan(&Config::default(), tasks_max).map_err(error)?;
        let task = |it: Task| sources::Task { index: it.index, assignment: it.assignment };
        Ok(planned.into_iter().map(task).collect())
    }

    fn open(task: sources::Task, offsets: Vec<sources::Offset>) -> Result<String, types::Error> {
        tell_panics();
        let task = Task { index: task.index, assignment: task.assignment };
        let opened = T::Source::open(&Config::default(), &task, &offsets_in(offsets)).map_err(error)?;
        let status = opened.status();
        T::with(|instance| *instance = Some(opened));
        Ok(status)
    }

    fn poll(budget: sources::Budget) -> Result<sources::Polled, types::Error> {
        let budget = Budget { bytes: budget.bytes as usize, records: budget.records as usize };
        with_schemas(|schemas| {
            let mut out = Records::new(schemas);
            let (polled, status) =
                open::<T, _>(|source| Ok((source.poll(budget, &mut out)?, source.status())))?;
            let nothing = out.is_empty() && out.rejected.is_empty();
            let (batch, rejected, offsets) = out.finish();
            let offset = |(partition, place)| sources::Offset { partition, place };
            let offsets: Vec<_> = offsets.into_iter().map(offset).collect();
            let found = match polled {
                Polled::End if nothing => sources::Found::End,
                Polled::Open if nothing => sources::Found::Idle(offsets),
                // What it brought comes first; the next poll says the end again.
                Polled::End | Polled::Open => {
                    let rejected = rejected.into_iter().map(|it| sources::RejectedInput {
                        position: it.position,
                        bytes: it.bytes,
                        details: details(it.why),
                    });
                    sources::Found::Records(sources::Records { batch, offsets, rejected: rejected.collect() })
                }
            };
            Ok(sources::Polled { found, status })
        })
    }

    fn commit(offsets: Vec<sources::Offset>) -> Result<(), types::Error> {
        open::<T, _>(|source| source.commit(&offsets_in(offsets)))
    }

    fn upstream_end() -> Result<Option<sources::Position>, types::Error> {
        let end = open::<T, _>(Source::upstream_end)?;
        Ok(end.map(|it| sources::Position { document: it.document, text: it.text }))
    }

    fn has_passed(durable: Vec<sources::Offset>, end: sources::Position) -> bool {
        let end = Position { document: end.document, text: end.text };
        let durable = offsets_in(durable);
        T::with(|instance| instance.as_ref().is_some_and(|source| source.has_passed(&durable, &end)))
    }

    fn close() -> Result<(), types::Error> {
        open::<T, _>(Source::close)
    }
}
