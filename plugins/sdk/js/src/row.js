// Rows: reading one under its fields, and writing one. The form stands in plugins/wit/README.md.

const NULL = 1;
const ABSENT = 2;
const END_MASK = 0x3fffffff;
const SAFE_HIGH = 2 ** 21;

const utf8 = new TextDecoder('utf-8');
const encoder = new TextEncoder();

/** A bigint as a number, where a number can hold it. */
export function narrow(value) {
  return value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
}

/** The 64-bit integer at a place: a number where a number can hold it, a bigint otherwise. */
export function int64(view, at) {
  const high = view.getInt32(at + 4, true);
  // -2^53 itself is no safe integer.
  return high >= -SAFE_HIGH + 1 && high < SAFE_HIGH
    ? high * 4294967296 + view.getUint32(at, true)
    : narrow(view.getBigInt64(at, true));
}

/** UTF-8 as text. */
export function text(bytes) {
  return utf8.decode(bytes);
}

/** What a value of a field is in a row. */
export function kindOf(type) {
  if (type.dimensions !== 0) return 'text';
  switch (type.scalar) {
    case 'boolean':
    case 'float32':
    case 'float64':
    case 'bytes':
      return type.scalar;
    case 'int16':
    case 'int32':
    case 'int64':
      return 'int';
    default:
      return 'text';
  }
}

const WIDTHS = { boolean: 1, int: 8, float32: 4, float64: 8 };
const RANGES = { int16: [-32768n, 32767n], int32: [-(2n ** 31n), 2n ** 31n - 1n], int64: [-(2n ** 63n), 2n ** 63n - 1n] };

/** A row of a record. */
export class Row {
  #bytes;
  #view;
  #start;
  #length;

  /** @param shape the fields, as `Schemas` keeps them */
  constructor(shape, bytes, view, start, length) {
    this.shape = shape;
    this.#bytes = bytes;
    this.#view = view;
    this.#start = start;
    this.#length = length;
    if (length < shape.fields.length * 4) throw new RangeError('a row is shorter than its table');
  }

  get fields() {
    return this.shape.fields;
  }

  get length() {
    return this.shape.fields.length;
  }

  /** Where the bytes of a field stand, from the end of the table; -1 null, -2 absent. */
  #place(index) {
    const at = this.#start + index * 4;
    const raw = this.#view.getUint32(at, true);
    const state = raw >>> 30;
    if (state !== 0) return state === NULL ? -1 : -2;
    const table = this.#start + this.shape.fields.length * 4;
    const from = index === 0 ? 0 : this.#view.getUint32(at - 4, true) & END_MASK;
    const end = raw & END_MASK;
    if (from > end || table + end > this.#start + this.#length) throw new RangeError('a field is outside of its row');
    this.#from = table + from;
    return table + end;
  }

  #from = 0;

  /** A value: `null`, `undefined` where the source did not tell, or what the field's type says. */
  get(index) {
    const kind = this.shape.kinds[index];
    if (kind === undefined) return undefined;
    const end = this.#place(index);
    if (end < 0) return end === -1 ? null : undefined;
    const from = this.#from;
    const width = WIDTHS[kind];
    if (width !== undefined && end - from !== width) throw new RangeError('a field has the wrong width');
    switch (kind) {
      case 'text':
        return utf8.decode(this.#bytes.subarray(from, end));
      case 'int':
        return int64(this.#view, from);
      case 'boolean':
        return this.#bytes[from] !== 0;
      case 'float64':
        return this.#view.getFloat64(from, true);
      case 'float32':
        return this.#view.getFloat32(from, true);
      default:
        return this.#bytes.slice(from, end);
    }
  }

  /** The value of a field; `undefined` also where there is no such field. */
  byName(name) {
    const index = this.shape.index.get(name);
    return index === undefined ? undefined : this.get(index);
  }

  has(name) {
    return this.shape.index.has(name);
  }

  values() {
    return this.shape.fields.map((_, index) => this.get(index));
  }

  /** `{ name: value }`, without absent fields. */
  toObject() {
    const object = {};
    this.shape.fields.forEach(({ name }, index) => {
      const value = this.get(index);
      if (value !== undefined) object[name] = value;
    });
    return object;
  }

  /** The state of a field and its bytes as they stand. */
  raw(index) {
    const end = this.#place(index);
    return end < 0 ? [-end, undefined] : [0, this.#bytes.subarray(this.#from, end)];
  }
}

/** Writes the values of a row, in the order of its fields. Fields that are not written are absent. */
export class RowWriter {
  #arena;
  #shape;
  #start;
  #written = 0;

  constructor(arena, shape) {
    this.#arena = arena;
    this.#shape = shape;
    this.#start = arena.length;
    arena.skip(shape.fields.length * 4);
  }

  #seal(state) {
    const table = this.#shape.fields.length * 4;
    const end = this.#arena.length - this.#start - table;
    if (end > END_MASK) throw new RangeError('a row is larger than a row may be');
    this.#arena.setUint32(this.#start + this.#written * 4, ((state << 30) | end) >>> 0);
    this.#written += 1;
  }

  /** Writes the next value: `null`, `undefined` for absent, or what the field's type says. */
  value(value) {
    const field = this.#shape.fields[this.#written];
    if (field === undefined) throw new RangeError(`the row has ${this.#shape.fields.length} fields and no more`);
    if (value === null) return this.#seal(NULL);
    if (value === undefined) return this.#seal(ABSENT);
    this.#put(field, this.#shape.kinds[this.#written], value);
    return this.#seal(0);
  }

  #put(field, kind, value) {
    const arena = this.#arena;
    if (kind === 'text' && typeof value === 'string') return arena.text(value);
    if (kind === 'int') return arena.int64(whole(field, value));
    if (kind === 'boolean' && typeof value === 'boolean') return arena.byte(value ? 1 : 0);
    if (kind === 'float64' && typeof value === 'number') return arena.float64(value);
    if (kind === 'float32' && typeof value === 'number') return arena.float32(value);
    if (kind === 'bytes' && value instanceof Uint8Array) return arena.bytes(value);
    throw new TypeError(`\`${field.name}\` takes no ${typeof value}: its type is ${field.type.scalar}`);
  }

  /** Writes the next field as it stands in another row. */
  copy(row, index) {
    const [state, bytes] = row.raw(index);
    if (bytes !== undefined) this.#arena.bytes(bytes);
    this.#seal(state);
  }

  /** Closes the row, and returns where it stands. */
  finish() {
    while (this.#written < this.#shape.fields.length) this.#seal(ABSENT);
    return [this.#start, this.#arena.length - this.#start];
  }
}

function whole(field, value) {
  const { scalar } = field.type;
  if (typeof value !== 'bigint' && !Number.isSafeInteger(value)) {
    throw new TypeError(`\`${field.name}\` takes whole numbers, and bigints where they are large`);
  }
  const [min, max] = RANGES[scalar];
  if (value < min || value > max) throw new RangeError(`${value} is no ${scalar}, which \`${field.name}\` is`);
  return value;
}

/** Bytes that grow. */
export class Arena {
  #bytes;
  #view;
  length = 0;

  constructor(room) {
    this.#bytes = new Uint8Array(Math.max(room, 256));
    this.#view = new DataView(this.#bytes.buffer);
  }

  #reserve(more) {
    const needed = this.length + more;
    if (needed <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.max(needed, this.#bytes.length * 2));
    larger.set(this.#bytes.subarray(0, this.length));
    this.#bytes = larger;
    this.#view = new DataView(larger.buffer);
  }

  /** Room for what is written later. */
  skip(length) {
    this.#reserve(length);
    this.#bytes.fill(0, this.length, this.length + length);
    this.length += length;
  }

  setUint32(at, value) {
    this.#view.setUint32(at, value, true);
  }

  byte(value) {
    this.#reserve(1);
    this.#bytes[this.length++] = value;
  }

  uint32(value) {
    this.#reserve(4);
    this.#view.setUint32(this.length, value, true);
    this.length += 4;
  }

  int64(value) {
    this.#reserve(8);
    if (typeof value === 'bigint') {
      this.#view.setBigInt64(this.length, value, true);
    } else {
      const high = Math.floor(value / 4294967296);
      this.#view.setUint32(this.length, value - high * 4294967296, true);
      this.#view.setInt32(this.length + 4, high, true);
    }
    this.length += 8;
  }

  float64(value) {
    this.#reserve(8);
    this.#view.setFloat64(this.length, value, true);
    this.length += 8;
  }

  float32(value) {
    this.#reserve(4);
    this.#view.setFloat32(this.length, value, true);
    this.length += 4;
  }

  bytes(bytes) {
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, this.length);
    this.length += bytes.length;
  }

  /** Appends UTF-8, and returns its length. */
  text(text) {
    this.#reserve(text.length * 3);
    const { written } = encoder.encodeInto(text, this.#bytes.subarray(this.length));
    this.length += written;
    return written;
  }

  /** What has been written. */
  written() {
    return this.#bytes.subarray(0, this.length);
  }
}
