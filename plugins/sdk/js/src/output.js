// Writing the batch that goes on.
import { AT, ENTRY_BYTES, HEADER_BYTES, MAGIC, NOT_THERE, OPS } from './batch.js';
import { Rejection } from './error.js';
import { Arena, RowWriter } from './row.js';

const SLOTS = [AT.key, AT.before, AT.after, AT.source, AT.headers, AT.topic];

/** Writes a row from a function, its values in order, or values by name. Returns where it stands. */
export function writeRow(arena, shape, write) {
  if (shape === undefined) throw new RangeError('the schema has no such row');
  const row = new RowWriter(arena, shape);
  if (typeof write === 'function') write(row);
  else if (Array.isArray(write)) write.forEach((value) => row.value(value));
  else {
    const unknown = Object.keys(write).find((name) => !shape.index.has(name));
    if (unknown !== undefined) throw new RangeError(`there is no field \`${unknown}\``);
    shape.fields.forEach(({ name }) => row.value(write[name]));
  }
  return row.finish();
}

/** Writes headers: `[name, value]` each, a value being bytes, text or null. Returns where they stand. */
export function writeHeaders(arena, headers) {
  const start = arena.length;
  const put = (value) => {
    if (value === null) return arena.uint32(NOT_THERE);
    const at = arena.length;
    arena.uint32(0);
    if (typeof value === 'string') arena.text(value);
    else arena.bytes(value);
    return arena.setUint32(at, arena.length - at - 4);
  };
  for (const [name, value] of headers) {
    put(String(name));
    put(value);
  }
  return [start, arena.length - start];
}

/** The number of an operation in an entry. */
export function opCode(op) {
  const code = OPS.indexOf(op);
  if (code < 0) throw new RangeError(`\`${op}\` is no operation`);
  return code;
}

/**
 * The records that go on, and those that are rejected. Each record of the incoming batch can go on once, in order.
 *
 * What is kept stays where it stands in the incoming buffer: what is written is counted from the end of it, and both
 * are put together at the end.
 */
export class Output {
  #batch;
  #entries;
  #view;
  #count = 0;
  #next = 0;
  #changed = false;

  constructor(batch) {
    this.#batch = batch;
    this.#entries = new Uint8Array(batch.length * ENTRY_BYTES);
    this.#view = new DataView(this.#entries.buffer);
    this.arena = new Arena(1024);
    this.rejected = [];
  }

  /** A number for a schema to write records of; nothing when there are too many, or it is too large. */
  define(schema) {
    return this.#batch.schemas.define(schema);
  }

  /** Lets the record go on as it is. */
  keep(record) {
    this.#push(record);
  }

  /** Lets the record go on, but for what is written of it. */
  rewrite(record) {
    return new Rewrite(this, record, record.schemaNumber(), record.known, true);
  }

  /** Lets the record go on under another schema: its images are those that are written, its key and source block stay. */
  rewriteAs(record, number) {
    const known = this.#batch.schemas.get(number);
    if (known === undefined) throw new RangeError(`nobody knows the schema ${number}`);
    return new Rewrite(this, record, number, known, false);
  }

  /** Sends the record, as it came, to the dead-letter topic. */
  reject(record, why) {
    if (!(why instanceof Rejection)) throw new TypeError('a record is rejected with a Rejection');
    this.rejected.push({ index: record.index, details: why.details() });
  }

  /** Where what is written begins, once it stands behind the incoming arena. */
  get base() {
    return this.#batch.entries;
  }

  #push(record) {
    if (record.index < this.#next) throw new RangeError('a record goes on once, and in the order in which it came');
    this.#next = record.index + 1;
    const at = this.#count * ENTRY_BYTES;
    const from = record.at;
    this.#entries.set(this.#batch.bytes.subarray(from, from + ENTRY_BYTES), at);
    this.#view.setUint32(at + 12, record.index, true);
    // Positions are the host's business.
    this.#view.setUint32(at + AT.position, NOT_THERE, true);
    this.#count += 1;
    return at;
  }

  /** Adds a record's entry, which `write` changes. */
  push(record, write) {
    this.#changed = true;
    write(this.#view, this.#push(record));
  }

  /** The buffer. */
  finish() {
    const { bytes, entries: base } = this.#batch;
    if (!this.#changed && this.#count === this.#batch.length) return bytes;
    const written = this.arena.written();
    const entries = this.#entries.subarray(0, this.#count * ENTRY_BYTES);
    // Where little was kept, it is not worth to send all of what came in.
    const whole = this.#keptBytes() * 2 >= base - HEADER_BYTES;
    const kept = whole ? bytes.subarray(HEADER_BYTES, base) : this.#gathered();
    const start = HEADER_BYTES + kept.length;
    if (start !== base) this.#moveWritten(base, start);
    const out = new Uint8Array(start + written.length + entries.length);
    const view = new DataView(out.buffer);
    [MAGIC, this.#count, start + written.length, 0].forEach((word, index) => view.setUint32(index * 4, word, true));
    out.set(kept, HEADER_BYTES);
    out.set(written, start);
    out.set(entries, start + written.length);
    return out;
  }

  *#slots() {
    for (let at = 0; at < this.#count * ENTRY_BYTES; at += ENTRY_BYTES) {
      for (const slot of SLOTS) {
        const start = this.#view.getUint32(at + slot, true);
        if (start !== NOT_THERE) yield [at + slot, start];
      }
    }
  }

  #keptBytes() {
    let sum = 0;
    for (const [at, start] of this.#slots()) if (start < this.base) sum += this.#view.getUint32(at + 4, true);
    return sum;
  }

  /** What was kept, one after the other. */
  #gathered() {
    const gathered = new Arena(1024);
    for (const [at, start] of this.#slots()) {
      if (start >= this.base) continue;
      const length = this.#view.getUint32(at + 4, true);
      this.#view.setUint32(at, HEADER_BYTES + gathered.length, true);
      gathered.bytes(this.#batch.bytes.subarray(start, start + length));
      this.#gatheredSlots.add(at);
    }
    return gathered.written();
  }

  #gatheredSlots = new Set();

  #moveWritten(from, to) {
    for (const [at, start] of this.#slots()) {
      if (!this.#gatheredSlots.has(at)) this.#view.setUint32(at, start - from + to, true);
    }
  }
}

/** A record on its way out; without `finish` it does not go on. */
export class Rewrite {
  #out;
  #record;
  #number;
  #known;
  #images;
  #slots = new Map();
  #scalars = [];

  constructor(out, record, number, known, images) {
    this.#out = out;
    this.#record = record;
    this.#number = number;
    this.#known = known;
    this.#images = images;
  }

  #row(at, shape, write) {
    this.#slots.set(at, writeRow(this.#out.arena, shape, write));
    return this;
  }

  /** Writes the key's row anew: a function that writes values, a list of them, or `{ name: value }`. */
  key(write) {
    return this.#row(AT.key, this.#known.key, write);
  }

  before(write) {
    return this.#row(AT.before, this.#known.value, write);
  }

  after(write) {
    return this.#row(AT.after, this.#known.value, write);
  }

  /** Writes these fields of the row after the change anew, `{ name: value }`; the others stay. */
  set(changes) {
    const row = this.#record.after();
    if (row === undefined || !this.#images) throw new RangeError('the record has no row to change');
    const unknown = Object.keys(changes).find((name) => !row.has(name));
    if (unknown !== undefined) throw new RangeError(`the record has no field \`${unknown}\``);
    return this.after((writer) => {
      row.fields.forEach(({ name }, index) => {
        if (Object.hasOwn(changes, name)) writer.value(changes[name]);
        else writer.copy(row, index);
      });
    });
  }

  op(op) {
    const code = opCode(op);
    this.#scalars.push((view, at) => view.setUint8(at + 8, code));
    return this;
  }

  flat(flat) {
    this.#scalars.push((view, at) => view.setUint8(at + 9, flat ? 1 : 0));
    return this;
  }

  timestampMs(timestamp) {
    this.#scalars.push((view, at) => view.setBigInt64(at + 16, BigInt(timestamp), true));
    return this;
  }

  /** Chooses the topic. */
  topic(topic) {
    const start = this.#out.arena.length;
    this.#slots.set(AT.topic, [start, this.#out.arena.text(topic)]);
    return this;
  }

  /** Chooses the partition. */
  partition(partition) {
    this.#scalars.push((view, at) => view.setInt32(at + 4, partition, true));
    return this;
  }

  /** Replaces all headers: `[name, value]` each, a value being bytes, text or null. */
  headers(headers) {
    this.#slots.set(AT.headers, writeHeaders(this.#out.arena, headers));
    return this;
  }

  /** The record goes on; what has not been written stays. */
  finish() {
    this.#out.push(this.#record, (view, at) => {
      view.setUint32(at, this.#number, true);
      if (!this.#images) {
        view.setUint32(at + AT.before, NOT_THERE, true);
        view.setUint32(at + AT.after, NOT_THERE, true);
      }
      for (const [slot, [start, length]] of this.#slots) {
        view.setUint32(at + slot, this.#out.base + start, true);
        view.setUint32(at + slot + 4, length, true);
      }
      for (const write of this.#scalars) write(view, at);
    });
  }
}
