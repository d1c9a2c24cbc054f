// Reading the batch that comes in. The form stands in plugins/wit/README.md.
import { Row, int64, text } from './row.js';

export const MAGIC = 0x31425054;
export const HEADER_BYTES = 16;
export const ENTRY_BYTES = 96;
export const NOT_THERE = 0xffffffff;
export const AT = { key: 40, before: 48, after: 56, source: 64, headers: 72, position: 80, topic: 88 };

/** What became of a row; a plain record has none. */
export const OPS = [undefined, 'create', 'read', 'update', 'delete', 'truncate', 'tombstone'];

/** Records as they came. */
export class Batch {
  /** Reads a buffer. Throws where it is none. */
  constructor(bytes, schemas) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (bytes.length < HEADER_BYTES || view.getUint32(0, true) !== MAGIC) throw new RangeError('no batch');
    const count = view.getUint32(4, true);
    const entries = view.getUint32(8, true);
    if (entries < HEADER_BYTES || entries + count * ENTRY_BYTES !== bytes.length) {
      throw new RangeError('the batch has its entries at a wrong place');
    }
    this.bytes = bytes;
    this.view = view;
    this.entries = entries;
    this.length = count;
    this.schemas = schemas;
  }

  /** The records, in their order. */
  *records() {
    let number = -1;
    let known;
    for (let index = 0; index < this.length; index += 1) {
      const at = this.entries + index * ENTRY_BYTES;
      const next = this.view.getUint32(at, true);
      if (next !== number) {
        number = next;
        known = this.schemas.get(number);
        if (known === undefined) throw new RangeError(`nobody knows the schema ${number}`);
      }
      yield new Record(this, at, index, known);
    }
  }

  [Symbol.iterator]() {
    return this.records();
  }
}

/** One record of a batch. */
export class Record {
  constructor(batch, at, index, known) {
    this.batch = batch;
    this.at = at;
    this.index = index;
    this.known = known;
  }

  schema() {
    return this.known.schema;
  }

  schemaNumber() {
    return this.batch.view.getUint32(this.at, true);
  }

  /** `create`, `read`, `update`, `delete`, `truncate`, `tombstone`, or nothing for a plain record. */
  op() {
    return OPS[this.batch.bytes[this.at + 8]];
  }

  /** Whether formats write the row alone. */
  isFlat() {
    return this.batch.bytes[this.at + 9] === 1;
  }

  /** Milliseconds since 1970 UTC. */
  timestampMs() {
    return int64(this.batch.view, this.at + 16);
  }

  /** The offset in the partition it was read from; -1 on the way into a topic. */
  offset() {
    return int64(this.batch.view, this.at + 24);
  }

  /** The partition chosen for it. */
  partition() {
    const partition = this.batch.view.getInt32(this.at + 4, true);
    return partition < 0 ? undefined : partition;
  }

  /** Where a part of it stands: start and length, or nothing. */
  slot(at) {
    const { view, entries } = this.batch;
    const start = view.getUint32(this.at + at, true);
    if (start === NOT_THERE) return undefined;
    const length = view.getUint32(this.at + at + 4, true);
    if (start < HEADER_BYTES || start + length > entries) throw new RangeError('a slot is outside of the arena');
    return [start, length];
  }

  #row(at, shape) {
    const slot = shape && this.slot(at);
    return slot && new Row(shape, this.batch.bytes, this.batch.view, slot[0], slot[1]);
  }

  key() {
    return this.#row(AT.key, this.known.key);
  }

  /** The row before the change. */
  before() {
    return this.#row(AT.before, this.known.value);
  }

  /** The row after the change; a plain record's row. */
  after() {
    return this.#row(AT.after, this.known.value);
  }

  /** The row of Debezium's source block. */
  source() {
    return this.#row(AT.source, this.known.source);
  }

  #bytes(at) {
    const slot = this.slot(at);
    return slot && this.batch.bytes.subarray(slot[0], slot[0] + slot[1]);
  }

  /** The topic chosen for it. */
  topic() {
    const bytes = this.#bytes(AT.topic);
    return bytes && text(bytes);
  }

  /** `[name, value]` each; a value is bytes or null. */
  headers() {
    const bytes = this.#bytes(AT.headers);
    const all = [];
    if (bytes === undefined) return all;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    let at = 0;
    const take = () => {
      const length = view.getUint32(at, true);
      at += 4;
      if (length === NOT_THERE) return null;
      if (at + length > bytes.length) throw new RangeError('a header is outside of its record');
      at += length;
      return bytes.slice(at - length, at);
    };
    while (at < bytes.length) {
      const name = take();
      if (name === null) throw new RangeError('a header has no name');
      all.push([text(name), take()]);
    }
    return all;
  }
}
