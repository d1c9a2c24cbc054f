// A plugin on the author's machine, without WASM.
import { AT, Batch, ENTRY_BYTES, HEADER_BYTES, MAGIC, NOT_THERE } from './batch.js';
import { Taken, polled } from './component.js';
import { Delivery } from './delivery.js';
import { Config } from './host.js';
import { Output } from './output.js';
import { Request, stand } from './outside.js';
import { Records } from './records.js';
import { Arena, RowWriter } from './row.js';
import { Schemas } from './schema.js';

/** A buffer of plain records, one for each row (`{ name: value }`). */
export function encode(schema, rows, schemas) {
  const number = schemas.define(schema);
  const shape = schemas.get(number).value;
  const arena = new Arena(1024);
  arena.skip(HEADER_BYTES);
  const slots = rows.map((row) => {
    const writer = new RowWriter(arena, shape);
    shape.fields.forEach(({ name }) => writer.value(row[name]));
    return writer.finish();
  });
  const start = arena.length;
  arena.skip(rows.length * ENTRY_BYTES);
  const bytes = arena.written().slice();
  const view = new DataView(bytes.buffer);
  [MAGIC, rows.length, start, 0].forEach((word, index) => view.setUint32(index * 4, word, true));
  slots.forEach(([from, length], index) => {
    const at = start + index * ENTRY_BYTES;
    for (const slot of Object.values(AT)) view.setUint32(at + slot, NOT_THERE, true);
    view.setUint32(at, number, true);
    view.setInt32(at + 4, -1, true);
    view.setUint32(at + 12, index, true);
    view.setBigInt64(at + 24, BigInt(index), true);
    view.setUint32(at + AT.after, from, true);
    view.setUint32(at + AT.after + 4, length, true);
  });
  return bytes;
}

const told = (bytes, schemas) => [...new Batch(bytes, schemas).records()].map((record) => ({
  origin: record.batch.view.getUint32(record.at + 12, true),
  schema: record.schema(),
  op: record.op(),
  key: record.key()?.toObject(),
  row: record.after()?.toObject(),
  topic: record.topic(),
  headers: record.headers(),
}));

/** Opens a transform with these options, gives it rows of a schema, and tells what became of them. */
export function transform(Plugin, options, schema, rows) {
  const schemas = new Schemas();
  const open = Plugin.open(new Config(options));
  const batch = new Batch(encode(schema, rows, schemas), schemas);
  const out = new Output(batch);
  open.process(batch, out);
  return { records: told(out.finish(), schemas), rejected: out.rejected };
}

/** Opens a source with these options, at these offsets (`{ partition: place }`). `poll` tells what comes of a poll. */
export function openSource(Plugin, options, offsets = {}, task = { index: 0, assignment: '' }) {
  const schemas = new Schemas();
  const source = Plugin.open(new Config(options), task, new Map(Object.entries(offsets)));
  const poll = ({ bytes = 1 << 20, records = 1000 } = {}) => {
    const { out, found } = polled(source, { bytes, records }, new Records(schemas));
    return {
      records: told(out.finish(), schemas),
      offsets: Object.fromEntries(out.offsets),
      rejected: out.rejected,
      end: found.tag === 'end',
    };
  };
  return { source, poll };
}

/** Opens a sink with these options. `write` gives it rows of a schema, and tells what became of them. */
export function openSink(Plugin, options, { topic = 'test', partition = 0, topicId = 'test-id' } = {}) {
  const schemas = new Schemas();
  const sink = Plugin.open(new Config(options));
  const taken = new Taken(sink);
  let next = 0;
  const write = (schema, rows) => {
    const batch = new Batch(encode(schema, rows, schemas), schemas);
    const [firstOffset, nextOffset] = [BigInt(next), BigInt(next + rows.length)];
    const { durability, rejections } = taken.write(
      new Delivery({ partition: { topic, partition }, topicId, firstOffset, nextOffset }, batch));
    if (rejections.length === 0) next += rows.length;
    return { durability, rejected: rejections };
  };
  return { sink, write, flush: () => taken.flush() };
}

const encoder = new TextEncoder();

/**
 * Lets a test stand in for what is outside: `{ http: (request) => new Response(200, [], '…') }`. `secrets`, given as
 * `{ option: value }`, are marked as `<option>`; `state` is a `Map`, which is written to. What is not given is not there.
 */
export function outside({ http, secrets, state } = {}) {
  const mark = (option) =>
    secrets[option] === undefined ? undefined : { mark: `<${option}>`, length: encoder.encode(secrets[option]).length };
  stand({
    http: http && { send: (request) => http(new Request(request)) },
    secrets: secrets && { get: mark, getAs: mark },
    state: state && {
      get: (key) => state.get(key),
      set: (key, value) => (value === undefined ? state.delete(key) : state.set(key, value)),
      keys: () => [...state.keys()].sort(),
    },
  });
}
