// Writing the records that a source brings.
import { AT, ENTRY_BYTES, HEADER_BYTES, MAGIC, NOT_THERE } from './batch.js';
import { Rejection } from './error.js';
import { opCode, writeHeaders, writeRow } from './output.js';
import { Arena } from './row.js';

/** What one poll brings: records, the offsets that hold once they are durable, and input that is no record. */
export class Records {
  #schemas;
  #entries = new Arena(ENTRY_BYTES * 64);

  constructor(schemas) {
    this.#schemas = schemas;
    this.arena = new Arena(1024);
    this.arena.skip(HEADER_BYTES);
    this.rejected = [];
    this.offsets = new Map();
  }

  /** A number for a schema to write records of; nothing when there are too many, or it is too large. */
  define(schema) {
    return this.#schemas.define(schema);
  }

  /** How many records there are. */
  get length() {
    return this.#entries.length / ENTRY_BYTES;
  }

  /** Bytes of the records. */
  get bytes() {
    return this.arena.length - HEADER_BYTES + this.#entries.length;
  }

  /** Begins a record under the schema of a number. */
  record(number) {
    const known = this.#schemas.get(number);
    if (known === undefined) throw new RangeError(`nobody knows the schema ${number}`);
    return new NewRecord(this, number, known);
  }

  /** Says where to go on in a source partition, once everything so far is durable: a text of your own. */
  offset(partition, place) {
    this.offsets.set(String(partition), String(place));
  }

  /** Forgets a source partition. */
  forget(partition) {
    this.offsets.set(String(partition), undefined);
  }

  /** Sends input that is no record, bytes or text, to the dead-letter topic; `position` says where it stood, for people. */
  reject(position, input, why) {
    if (!(why instanceof Rejection)) throw new TypeError('input is rejected with a Rejection');
    const bytes = typeof input === 'string' ? new TextEncoder().encode(input) : input;
    this.rejected.push({ position: String(position), bytes, details: why.details() });
  }

  /** Adds a record's entry. */
  push(entry) {
    new DataView(entry.buffer).setUint32(12, this.length, true);
    this.#entries.bytes(entry);
  }

  /** The buffer. */
  finish() {
    const rows = this.arena.written();
    const entries = this.#entries.written();
    const out = new Uint8Array(rows.length + entries.length);
    out.set(rows);
    out.set(entries, rows.length);
    const view = new DataView(out.buffer);
    [MAGIC, this.length, rows.length, 0].forEach((word, index) => view.setUint32(index * 4, word, true));
    return out;
  }
}

const EMPTY = new Uint8Array(ENTRY_BYTES);
{
  const view = new DataView(EMPTY.buffer);
  view.setInt32(4, -1, true);
  view.setBigInt64(24, -1n, true);
  for (const slot of Object.values(AT)) view.setUint32(slot, NOT_THERE, true);
}

/** A record that is being written; without `finish` there is none. */
export class NewRecord {
  #out;
  #known;
  #entry = EMPTY.slice();
  #view = new DataView(this.#entry.buffer);

  constructor(out, number, known) {
    this.#out = out;
    this.#known = known;
    this.#view.setUint32(0, number, true);
  }

  #put(at, [start, length]) {
    this.#view.setUint32(at, start, true);
    this.#view.setUint32(at + 4, length, true);
    return this;
  }

  #row(at, shape, write) {
    return this.#put(at, writeRow(this.#out.arena, shape, write));
  }

  /** Writes the key's row: a function that writes values, a list of them, or `{ name: value }`. */
  key(write) {
    return this.#row(AT.key, this.#known.key, write);
  }

  /** Writes the row before the change. */
  before(write) {
    return this.#row(AT.before, this.#known.value, write);
  }

  /** Writes the row after the change, or a plain record's row. */
  after(write) {
    return this.#row(AT.after, this.#known.value, write);
  }

  /** Writes the source block's row. */
  source(write) {
    return this.#row(AT.source, this.#known.source, write);
  }

  /** Sets the operation; without one it is a plain record. */
  op(op) {
    this.#view.setUint8(8, opCode(op));
    return this;
  }

  /** Sets whether formats write the row alone. */
  flat(flat) {
    this.#view.setUint8(9, flat ? 1 : 0);
    return this;
  }

  timestampMs(timestamp) {
    this.#view.setBigInt64(16, BigInt(timestamp), true);
    return this;
  }

  /**
   * Sets the place of the record in its lane: bytes, text, or a whole number from 0 (which stands as 8 bytes). Places grow
   * within their lane, compared as bytes, and are the same when the record is read again: by them a restarted task knows
   * what its topic holds already.
   */
  position(lane, place) {
    this.#view.setBigUint64(32, BigInt(lane), true);
    const { arena } = this.#out;
    const start = arena.length;
    if (typeof place === 'string') arena.text(place);
    else if (place instanceof Uint8Array) arena.bytes(place);
    else {
      if (BigInt(place) < 0n) throw new RangeError('a place is no negative number');
      const bytes = new Uint8Array(8);
      new DataView(bytes.buffer).setBigUint64(0, BigInt(place));
      arena.bytes(bytes);
    }
    return this.#put(AT.position, [start, arena.length - start]);
  }

  /** Chooses the topic. */
  topic(topic) {
    const start = this.#out.arena.length;
    return this.#put(AT.topic, [start, this.#out.arena.text(topic)]);
  }

  /** Chooses the partition. */
  partition(partition) {
    this.#view.setInt32(4, partition, true);
    return this;
  }

  /** Sets the headers: `[name, value]` each, a value being bytes, text or null. */
  headers(headers) {
    return this.#put(AT.headers, writeHeaders(this.#out.arena, headers));
  }

  /** Adds the record. */
  finish() {
    this.#out.push(this.#entry);
  }
}
