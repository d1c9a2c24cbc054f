// Between the contract and the author's class. The entries that the build takes hand both over.
import { Batch } from './batch.js';
import { Delivery, TopicPartition, Written } from './delivery.js';
import { PluginError } from './error.js';
import { Config, bind, log } from './host.js';
import { Output } from './output.js';
import { Records } from './records.js';
import { Schemas } from './schema.js';

/** An error as the answer of a call that can fail; nothing where it is none. */
const one = (error) => (error instanceof PluginError ? error.variant() : undefined);

/** The same, where all that is wrong can be told at once. */
const several = (error) => {
  const all = error instanceof AggregateError ? error.errors : [error];
  return all.length > 0 && all.every((it) => it instanceof PluginError) ? all.map((it) => it.variant()) : undefined;
};

/** A call that cannot fail. */
const none = () => undefined;

/** Runs, and tells what is thrown that is no answer: the instance ends with it. */
function told(run, answer = one) {
  try {
    return run();
  } catch (error) {
    const said = answer(error);
    if (said !== undefined) throw said;
    log('error', error?.stack ? `${error}\n${error.stack}` : String(error));
    // Not in the form of any answer: it ends the call. (As a list of errors, any object would be an empty one.)
    throw answer === several ? undefined : error instanceof Error ? error : new Error(String(error));
  }
}

/** What a function of the plugin returns: the host has the answer when the call ends, and waits for no promise. */
function now(value, name) {
  if (typeof value?.then === 'function') {
    throw new TypeError(`\`${name}\` is async: functions of a plugin are not, and what they call outside waits by itself`);
  }
  return value;
}

/** What every world tells of itself. */
const about = (Plugin) => ({
  descriptor: () => told(() => {
    const { name, version, summary } = now(Plugin.descriptor(), 'descriptor');
    return { name, version, summary };
  }, none),
  configSpec: () => told(() => Plugin.descriptor().options.map(({ spec }) => spec), none),
  checkConfig: () => told(() => (now(Plugin.check?.(new Config()), 'check') ?? []).map(({ path, message, hint }) => ({
    path, message, hint,
  })), none),
});

/** What a source and a sink tell besides. */
const aboutConnector = (Plugin) => ({
  ...about(Plugin),
  promise: () => told(() => Plugin.descriptor().guarantee, none),
  check: () => told(() => [...(now(Plugin.probe?.(new Config()), 'probe') ?? [])].map(String), several),
});

const notOpen = () => PluginError.terminal('PLUGIN_NOT_OPEN', 'the plugin has not been opened');

function read(bytes, schemas) {
  try {
    return new Batch(bytes, schemas);
  } catch (error) {
    throw PluginError.terminal('PLUGIN_BATCH', `the batch from the host cannot be read: ${error.message}`);
  }
}

/** The exports of the world `transform`. */
export function transformExports(Plugin, host) {
  bind(host);
  const schemas = new Schemas();
  let open;
  return {
    plugin: about(Plugin),
    transforms: {
      open: () => told(() => {
        open = now(Plugin.open(new Config()), 'open');
      }),
      process: (bytes) => told(() => {
        if (open === undefined) throw notOpen();
        const batch = read(bytes, schemas);
        const out = new Output(batch);
        now(open.process(batch, out), 'process');
        return { batch: out.finish(), rejected: out.rejected };
      }),
    },
  };
}

const offsetsIn = (offsets) =>
  new Map(offsets.filter(({ place }) => place !== undefined).map(({ partition, place }) => [partition, place]));

/** The exports of the world `source`. */
export function sourceExports(Plugin, host) {
  bind(host);
  const schemas = new Schemas();
  let open;
  const opened = () => {
    if (open === undefined) throw notOpen();
    return open;
  };
  const status = () => String(open.status?.() ?? 'running');
  return {
    sources: {
      ...aboutConnector(Plugin),
      plan: (tasksMax) => told(() => {
        const assignments = now(Plugin.plan?.(new Config(), tasksMax), 'plan') ?? [''];
        return [...assignments].map((assignment, index) => ({ index, assignment: String(assignment) }));
      }),
      open: (task, offsets) => told(() => {
        open = now(Plugin.open(new Config(), task, offsetsIn(offsets)), 'open');
        return status();
      }),
      poll: (budget) => told(() => {
        const { found } = polled(opened(), budget, new Records(schemas));
        return { found, status: status() };
      }),
      commit: (offsets) => told(() => {
        now(opened().commit?.(offsetsIn(offsets)), 'commit');
      }),
      upstreamEnd: () => told(() => {
        const end = now(opened().upstreamEnd?.(), 'upstreamEnd');
        if (end === undefined) return undefined;
        if (typeof end?.document !== 'string') throw new TypeError('`upstreamEnd` returns `{ document, text }`, both of them text');
        return { document: end.document, text: String(end.text) };
      }),
      hasPassed: (durable, end) =>
        told(() => Boolean(now(open?.hasPassed?.(offsetsIn(durable), end), 'hasPassed')), none),
      close: () => told(() => {
        now(opened().close?.(), 'close');
      }),
    },
  };
}

/** One poll: what it found, in the form of the contract, and the records. */
export function polled(source, { bytes, records }, out) {
  const said = now(source.poll({ bytes, records }, out), 'poll');
  if (said !== undefined && said !== 'end') throw new TypeError('`poll` returns nothing, or \'end\' where nothing comes ever again');
  const offsets = [...out.offsets].map(([partition, place]) => ({ partition, place }));
  if (out.length > 0 || out.rejected.length > 0) {
    // What it brought comes first; the next poll says the end again.
    return { out, found: { tag: 'records', val: { batch: out.finish(), offsets, rejected: out.rejected } } };
  }
  return { out, found: said === 'end' ? { tag: 'end' } : { tag: 'idle', val: offsets } };
}

const partitionOut = ({ topic, partition }) => ({ topic, partition });
const partitionIn = ({ topic, partition }) => new TopicPartition(topic, partition);

/** What has become of the deliveries of a sink: a flush makes safe everything that was accepted. */
export class Taken {
  #next = new Map();

  constructor(sink) {
    this.sink = sink;
  }

  write(delivery) {
    const written = now(this.sink.write(delivery), 'write');
    if (!(written instanceof Written)) throw new TypeError('`write` returns a Written, such as `Written.durable()`');
    if (written.rejections.length === 0) {
      if (written.durability === 'accepted' && this.sink.flush === undefined) {
        throw new TypeError('a sink without `flush` makes every delivery durable at once');
      }
      this.#next.set(`${delivery.partition}`, [delivery.partition, delivery.nextOffset]);
    }
    return written;
  }

  /** The durable next offset of each partition written so far: `[partition, next]` each. */
  flush() {
    now(this.sink.flush?.(), 'flush');
    return [...this.#next.values()];
  }

  forget(partitions) {
    for (const partition of partitions) this.#next.delete(`${partition}`);
  }
}

const positionsOut = (positions) =>
  [...(positions ?? [])].map(([partition, next]) => ({ partition: partitionOut(partition), nextOffset: BigInt(next) }));

/** The exports of the world `sink`. */
export function sinkExports(Plugin, host) {
  bind(host);
  const schemas = new Schemas();
  let open;
  const opened = () => {
    if (open === undefined) throw notOpen();
    return open;
  };
  return {
    sinks: {
      ...aboutConnector(Plugin),
      open: () => told(() => {
        open = new Taken(now(Plugin.open(new Config()), 'open'));
      }),
      assign: (added) => told(() => {
        const all = added.map(({ partition, topicId }) => ({ partition: partitionIn(partition), topicId }));
        opened().forget(all.map(({ partition }) => partition));
        return positionsOut(now(open.sink.assign?.(all), 'assign'));
      }),
      write: (delivery) => told(() => {
        const { durability, rejections } = opened().write(new Delivery(delivery, read(delivery.batch, schemas)));
        return { durability, rejected: rejections };
      }),
      flush: () => told(() => positionsOut(opened().flush())),
      revoke: (removed) => told(() => {
        const all = removed.map(partitionIn);
        now(opened().sink.revoke?.(all), 'revoke');
        open.forget(all);
      }),
      close: () => told(() => {
        now(opened().sink.close?.(), 'close');
      }),
    },
  };
}
