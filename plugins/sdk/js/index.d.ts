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
export type Values = ((row: RowWriter) => void) | Value[] | { [name: string]: Value };

export class Rewrite {
  key(write: Values): this;
  before(write: Values): this;
  after(write: Values): this;
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
  /** Promises that nothing comes twice, of a source or a sink. */
  exactlyOnce(): this;
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

export interface Task {
  index: number;
  /** What `plan` said. */
  assignment: string;
}

export interface Budget {
  bytes: number;
  records: number;
}

/** Where each source partition (a table, a file, a stream) has been read to: texts of the plugin's own. */
export type Offsets = Map<string, string>;

/** A point in the upstream's own order: in the plugin's own form, and for people. */
export interface Position {
  document: string;
  text: string;
}

/** A record of a source that is being written; without `finish` there is none. */
export class NewRecord {
  key(write: Values): this;
  before(write: Values): this;
  after(write: Values): this;
  source(write: Values): this;
  op(op: Op | undefined): this;
  flat(flat: boolean): this;
  timestampMs(timestamp: number | bigint): this;
  /** Its place in its lane, which grows and is the same when it is read again; a whole number stands as 8 bytes. */
  position(lane: number | bigint, place: Uint8Array | string | number | bigint): this;
  topic(topic: string): this;
  partition(partition: number): this;
  headers(headers: Iterable<[string, Uint8Array | string | null]>): this;
  finish(): void;
}

/** What one poll brings. */
export class Records {
  readonly length: number;
  readonly bytes: number;
  define(schema: Schema): number | undefined;
  record(schema: number): NewRecord;
  /** Where to go on in a source partition, once everything so far is durable. */
  offset(partition: string, place: string | number | bigint): void;
  forget(partition: string): void;
  /** Sends input that is no record to the dead-letter topic. */
  reject(position: string, input: Uint8Array | string, why: Rejection): void;
}

/** An open source. What is thrown as a `PluginError` closes it; it is opened again at what is durable. */
export interface Source {
  /** Writes the next records; waits a little (100 ms) where there are none. `'end'`: nothing comes ever again. */
  poll(budget: Budget, out: Records): 'end' | void;
  commit?(offsets: Offsets): void;
  upstreamEnd?(): Position | undefined;
  hasPassed?(durable: Offsets, end: Position): boolean;
  status?(): string;
  close?(): void;
}

export interface SourceClass {
  descriptor(): Descriptor;
  check?(config: Config): Problem[];
  /** What was verified of the world; throws what is missing, all of it as an `AggregateError`. */
  probe?(config: Config): string[];
  /** An assignment for each task, at most so many; one empty text unless said otherwise. */
  plan?(config: Config, tasksMax: number): string[];
  open(config: Config, task: Task, offsets: Offsets): Source;
}

/** A partition of a topic; as text it is `topic-0`. */
export class TopicPartition {
  constructor(topic: string, partition: number);
  readonly topic: string;
  readonly partition: number;
}

export interface Assigned {
  partition: TopicPartition;
  topicId: string;
}

export class Delivery {
  readonly partition: TopicPartition;
  readonly topicId: string;
  readonly firstOffset: number | bigint;
  readonly nextOffset: number | bigint;
  readonly batch: Batch;
}

/** What became of a delivery. */
export class Written {
  private constructor();
  static durable(): Written;
  static accepted(): Written;
  /** Nothing of the delivery may count: it comes again without these records. */
  static rejected(records: Iterable<[Record_ | number, Rejection]>): Written;
}

/** An open sink. */
export interface Sink {
  /** Where it wants to begin, of a sink that keeps positions of its own: `[partition, next offset]` each. */
  assign?(added: Assigned[]): Iterable<[TopicPartition, number | bigint]> | void;
  write(delivery: Delivery): Written;
  /** Makes safe everything that was accepted, or throws. */
  flush?(): void;
  revoke?(removed: TopicPartition[]): void;
  close?(): void;
}

export interface SinkClass {
  descriptor(): Descriptor;
  check?(config: Config): Problem[];
  probe?(config: Config): string[];
  open(config: Config): Sink;
}

declare class Message {
  readonly headers: [string, string][];
  readonly body: Uint8Array;
  header(name: string): string | undefined;
  text(): string;
  json(): any;
}

/** A request by HTTP, as a test sees it. */
export class Request extends Message {
  readonly method: string;
  readonly url: string;
  readonly timeoutMs: number;
}

/** An answer by HTTP, whatever its status. */
export class Response extends Message {
  constructor(status: number, headers?: [string, string][], body?: Uint8Array | string);
  readonly status: number;
  readonly ok: boolean;
}

/** HTTP, to the hosts of `plugins.NAME.grants.http`. */
export const http: {
  send(url: string, request?: {
    method?: string;
    headers?: { [name: string]: string | number | undefined };
    body?: Uint8Array | string;
    timeoutMs?: number;
  }): Response;
  basicAuth(user: string, option: string): string | undefined;
  bearerAuth(option: string): string | undefined;
};

export interface SecretForm {
  readonly tag: string;
}

export const Form: {
  json: SecretForm;
  base64(around?: { before?: string; after?: string }): SecretForm;
};

/** Secret options, for use without being seen: what to send in place of the value, and its bytes as it is sent. */
export const secrets: {
  get(option: string): { mark: string; length: number } | undefined;
  getAs(option: string, form: SecretForm): { mark: string; length: number } | undefined;
};

/** A connection by TCP. */
export class Connection {
  /** What has come: none where the other side has closed the connection, and `null` for nothing in time. */
  read(options?: { max?: number; timeoutMs?: number }): Uint8Array | null;
  write(data: Uint8Array | string, options?: { timeoutMs?: number }): void;
  close(): void;
}

/** TCP, to the hosts and ports of `plugins.NAME.grants.tcp`. */
export const tcp: {
  connect(host: string, port: number, options?: { timeoutMs?: number }): Connection;
};

/** A source's small memory that survives crashes: `plugins.NAME.grants.state`. */
export const state: {
  get(key: string): Uint8Array | undefined;
  set(key: string, value: Uint8Array | string | undefined): void;
  keys(): string[];
};

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
  records: Told[];
  rejected: { index: number; details: Details }[];
};

export interface Told {
  origin: number;
  schema: Schema;
  op: Op | undefined;
  key?: { [name: string]: Value };
  row?: { [name: string]: Value };
  topic?: string;
  headers: [string, Uint8Array | null][];
}

interface Details {
  code: string;
  message: string;
  hint?: string;
  path?: string;
}

/** Opens a source at these offsets, for tests. */
export function openSource(
  plugin: SourceClass,
  options: { [name: string]: unknown },
  offsets?: { [partition: string]: string },
  task?: Task,
): {
  source: Source;
  poll(budget?: Partial<Budget>): {
    records: Told[];
    offsets: { [partition: string]: string | undefined };
    rejected: { position: string; bytes: Uint8Array; details: Details }[];
    end: boolean;
  };
};

/** Opens a sink, for tests. */
export function openSink(
  plugin: SinkClass,
  options: { [name: string]: unknown },
  from?: { topic?: string; partition?: number; topicId?: string },
): {
  sink: Sink;
  write(schema: Schema, rows: { [name: string]: Value }[]): {
    durability: 'accepted' | 'durable';
    rejected: { index: number; details: Details }[];
  };
  flush(): [TopicPartition, number | bigint][];
};

/** Lets a test stand in for what is outside; secrets are marked as `<option>`. */
export function outside(doubles?: {
  http?: (request: Request) => Response;
  secrets?: { [option: string]: string };
  state?: Map<string, Uint8Array>;
}): void;
