//! Between the generated bindings of the world `sink` and what authors see. Compiled for guests only.

use crate::bindings::{self, error, not_open, tell_panics, with_schemas};
use crate::{Assigned, Batch, Config, Delivery, Error, Positions, Sink, TopicPartition};

#[allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, reason = "generated")]
mod generated {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "sink",
        pub_export_macro: true,
        export_macro_name: "export_sink_world",
        with: {
            "towpath:plugin/types@0.1.0": crate::bindings::towpath::plugin::types,
            "towpath:plugin/log@0.1.0": crate::bindings::towpath::plugin::log,
            "towpath:plugin/config@0.1.0": crate::bindings::towpath::plugin::config,
            "towpath:plugin/clock@0.1.0": crate::bindings::towpath::plugin::clock,
            "towpath:plugin/random@0.1.0": crate::bindings::towpath::plugin::random,
            "towpath:plugin/schemas@0.1.0": crate::bindings::towpath::plugin::schemas,
            "towpath:plugin/http@0.1.0": crate::bindings_source::towpath::plugin::http,
            "towpath:plugin/tcp@0.1.0": crate::bindings_source::towpath::plugin::tcp,
            "towpath:plugin/secrets@0.1.0": crate::bindings_source::towpath::plugin::secrets,
        },
        generate_all,
    });
}

pub use generated::*;

use bindings::towpath::plugin::types;
use exports::towpath::plugin::sinks;

/// A component with a sink in it.
pub trait SinkExport {
    /// The sink.
    type Sink: Sink;

    /// Runs with the instance, which is there once it is open.
    fn with<R>(run: impl FnOnce(&mut Option<Self::Sink>) -> R) -> R;
}

/// What the generated traits are implemented for.
pub struct Exported<T>(std::marker::PhantomData<T>);

fn partition_in(partition: sinks::TopicPartition) -> TopicPartition {
    TopicPartition { topic: partition.topic, partition: partition.partition }
}

fn positions_out(positions: Positions) -> Vec<sinks::Position> {
    let position = |(partition, next_offset): (TopicPartition, i64)| sinks::Position {
        partition: sinks::TopicPartition { topic: partition.topic, partition: partition.partition },
        next_offset,
    };
    positions.into_iter().map(position).collect()
}

/// Runs with the open instance.
fn open<T: SinkExport, R>(run: impl FnOnce(&mut T::Sink) -> Result<R, Error>) -> Result<R, types::Error> {
    T::with(|instance| match instance {
        Some(sink) => run(sink).map_err(error),
        None => Err(not_open()),
    })
}

impl<T: SinkExport> sinks::Guest for Exported<T> {
    fn descriptor() -> types::Description {
        bindings::description(T::Sink::descriptor())
    }

    fn config_spec() -> Vec<types::OptionSpec> {
        bindings::option_specs(T::Sink::descriptor())
    }

    fn check_config() -> Vec<types::Problem> {
        tell_panics();
        bindings::problems(T::Sink::check(&Config::default()))
    }

    fn promise() -> types::Guarantee {
        bindings::guarantee(&T::Sink::descriptor())
    }

    fn check() -> Result<Vec<String>, Vec<types::Error>> {
        tell_panics();
        T::Sink::probe(&Config::default()).map_err(|errors| errors.into_iter().map(error).collect())
    }

    fn open() -> Result<(), types::Error> {
        tell_panics();
        let opened = T::Sink::open(&Config::default()).map_err(error)?;
        T::with(|instance| *instance = Some(opened));
        Ok(())
    }

    fn assign(added: Vec<sinks::Assigned>) -> Result<Vec<sinks::Position>, types::Error> {
        let assigned =
            |it: sinks::Assigned| Assigned { partition: partition_in(it.partition), topic_id: it.topic_id };
        let added: Vec<_> = added.into_iter().map(assigned).collect();
        open::<T, _>(|sink| sink.assign(&added)).map(positions_out)
    }

    fn write(delivery: sinks::Delivery) -> Result<sinks::Written, types::Error> {
        with_schemas(|schemas| {
            let Some(batch) = Batch::read(&delivery.batch, schemas) else {
                return Err(error(Error::terminal("PLUGIN_BATCH", "the batch from the host cannot be read")));
            };
            let delivery = Delivery {
                partition: partition_in(delivery.partition),
                topic_id: delivery.topic_id,
                first_offset: delivery.first_offset,
                next_offset: delivery.next_offset,
                batch,
            };
            let written = open::<T, _>(|sink| sink.write(&delivery))?;
            let durability =
                if written.durable { sinks::Durability::Durable } else { sinks::Durability::Accepted };
            Ok(sinks::Written { durability, rejected: bindings::rejections(written.rejected) })
        })
    }

    fn flush() -> Result<Vec<sinks::Position>, types::Error> {
        open::<T, _>(Sink::flush).map(positions_out)
    }

    fn revoke(removed: Vec<sinks::TopicPartition>) -> Result<(), types::Error> {
        let removed: Vec<_> = removed.into_iter().map(partition_in).collect();
        open::<T, _>(|sink| sink.revoke(&removed))
    }

    fn close() -> Result<(), types::Error> {
        open::<T, _>(Sink::close)
    }
}
