// A transform on the author's machine, without WASM.
import { AT, Batch, ENTRY_BYTES, HEADER_BYTES, MAGIC, NOT_THERE } from './batch.js';
import { Config } from './host.js';
import { Output } from './output.js';
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

/** Opens a plugin with these options, gives it rows of a schema, and tells what became of them, for tests. */
export function transform(Plugin, options, schema, rows) {
  const schemas = new Schemas();
  const open = Plugin.open(new Config(options));
  const batch = new Batch(encode(schema, rows, schemas), schemas);
  const out = new Output(batch);
  open.process(batch, out);
  const records = [...new Batch(out.finish(), schemas).records()].map((record) => ({
    origin: record.batch.view.getUint32(record.at + 12, true),
    schema: record.schema(),
    row: record.after()?.toObject(),
    topic: record.topic(),
    headers: record.headers(),
  }));
  return { records, rejected: out.rejected };
}
