// Types of the SDK, for TypeScript and for editors.

/** A value of a row: text, a whole number (a bigint where a number cannot hold it), bytes …; undefined is absent. */
export type Value = string | number | bigint | boolean | Uint8Array | null | undefined;
export type Scalar = 'boolean' | 'int16' | 'int32' | 'int64' | 'float32' | 'float64' | 'decimal' | 'text' | 'bytes' | 'date'
  | 'time' | 'time-tz' | 'timestamp' | 'timestamp-tz' | 'interval' | 'uuid' | 'json';
export type Op = 'create' | 'read' | 'update' | 'delete' | 'truncate' | 'tombstone';

export interface Field {
  name: string;
  type: { scalar: Scalar; dimensions: number };
  nullable: boolean;
  sourceType?: string;
  renamedFrom?: string;
  initial?: string;
  id?: { table: bigint; column: number };
}

export interface Schema {
  name: string;
  variables: [string, string][];
  key?: Field[];
  value: Field[];
  computed: { name: string; sourceType: string; expression: string }[];
  source?: { constants: [string, string][]; fields: Field[] };
}

export function field(name: string, type: Scalar, more?: Partial<Omit<Field, 'name' | 'type'>> & { dimensions?: number }): Field;
export function plainSchema(name: string, value: Field[]): Schema;

export class Row {
  readonly fields: Field[];
  readonly length: number;
  get(index: number): Value;
  byName(name: string): Value;
  has(name: string): boolean;
  values(): Value[];
  toObject(): Record<string, Value>;
}

export class RowWriter {
  value(value: Value): void;
  copy(row: Row, index: number): void;
}

export class Record_ {
  readonly index: number;
  schema(): Schema;
  schemaNumber(): number;
  op(): Op | undefined;
  isFlat(): boolean;
  timestampMs(): number | bigint;
  offset(): number | bigint;
  partition(): number | undefined;
  key(): Row | undefined;
  before(): Row | undefined;
  after(): Row | undefined;
  source(): Row | undefined;
  topic(): string | undefined;
  headers(): [string, Uint8Array | null][];
}
export { Record_ as Record };

export class Batch {
  readonly length: number;
  records(): IterableIterator<Record_>;
  [Symbol.iterator](): IterableIterator<Record_>;
}

/** What a row is written from: a function, its values in order, or values by name. */
export type Written = ((row: RowWriter) => void) | Value[] | { [name: string]: Value };

export class Rewrite {
  key(write: Written): this;
  before(write: Written): this;
  after(write: Written): this;
  set(changes: { [name: string]: Value }): this;
  op(op: Op | undefined): this;
  flat(flat: boolean): this;
  timestampMs(timestamp: number | bigint): this;
  topic(topic: string): this;
  partition(partition: number): this;
  headers(headers: Iterable<[string, Uint8Array | string | null]>): this;
  finish(): void;
}

export class Output {
  define(schema: Schema): number | undefined;
  keep(record: Record_): void;
  rewrite(record: Record_): Rewrite;
  rewriteAs(record: Record_, schema: number): Rewrite;
  reject(record: Record_, why: Rejection): void;
}

export interface More {
  hint?: string;
  path?: string;
}

export class Rejection {
  constructor(code: string, message: string, more?: More);
}

export class PluginError extends Error {
  static retry(code: string, message: string, more?: More & { delayMs?: number }): PluginError;
  static needsOperator(code: string, message: string, more?: More): PluginError;
  static terminal(code: string, message: string, more?: More): PluginError;
}

export interface ElementType {
  readonly tag: string;
}

export const Element: {
  boolean: ElementType;
  integer(min: number | bigint, max: number | bigint): ElementType;
  text: ElementType;
  nonEmptyText: ElementType;
  url(schemes: string[]): ElementType;
  path: ElementType;
  duration: ElementType;
  byteSize: ElementType;
  oneOf(words: { [word: string]: string }): ElementType;
  scalar: ElementType;
  any: ElementType;
};

export class OptionSpec {
  static optional(name: string, element: ElementType, doc: string): OptionSpec;
  static required(name: string, element: ElementType, doc: string): OptionSpec;
  many(): OptionSpec;
  byKey(): OptionSpec;
  default(value: unknown): OptionSpec;
  secret(): OptionSpec;
}

export class Descriptor {
  constructor(name: string, version: string, summary: string);
  option(option: OptionSpec): this;
}

export class Problem {
  constructor(path: string, message: string, hint?: string);
}

export class Config {
  constructor(settings?: { [name: string]: unknown });
  text(name: string): string | undefined;
  integer(name: string): number | bigint | undefined;
  flag(name: string): boolean | undefined;
  texts(name: string): string[];
  json(name: string): any;
}

/** An open transform. Its class has `static descriptor()`, `static open(config)` and, if need be, `static check(config)`. */
export interface Transform {
  process(batch: Batch, out: Output): void;
}

export interface TransformClass {
  descriptor(): Descriptor;
  check?(config: Config): Problem[];
  open(config: Config): Transform;
}

export function log(level: 'debug' | 'info' | 'warn' | 'error', message: string): void;
export function nowMs(): number;
export function monotonicNs(): bigint;
export function random(length: number): Uint8Array;

/** Opens a plugin, gives it rows of a schema, and tells what became of them, for tests. */
export function transform(
  plugin: TransformClass,
  options: { [name: string]: unknown },
  schema: Schema,
  rows: { [name: string]: Value }[],
): {
  records: { origin: number; schema: Schema; row: { [name: string]: Value }; topic?: string; headers: [string, Uint8Array | null][] }[];
  rejected: { index: number; details: { code: string; message: string; hint?: string; path?: string } }[];
};
