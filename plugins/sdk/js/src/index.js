// What the author of a plugin sees. It runs outside of Towpath too, as in tests.
export { Batch, Record } from './batch.js';
export { Row, RowWriter } from './row.js';
export { Output, Rewrite } from './output.js';
export { NewRecord, Records } from './records.js';
export { Delivery, TopicPartition, Written } from './delivery.js';
export { Schemas, field, plainSchema } from './schema.js';
export { Descriptor, OptionSpec, Element, Problem } from './describe.js';
export { PluginError, Rejection } from './error.js';
export { Connection, Form, Request, Response, http, secrets, state, tcp } from './outside.js';
export { Config, log, nowMs, monotonicNs, random } from './host.js';
export { openSink, openSource, outside, transform } from './testing.js';
