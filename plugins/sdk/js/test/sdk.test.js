import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Batch, Config, Descriptor, Element, OptionSpec, Output, PluginError, Rejection, Schemas, field, plainSchema,
  transform } from '../src/index.js';
import { encode } from '../src/testing.js';

const SCHEMA = plainSchema('t', [field('id', 'int64'), field('text', 'text'), field('flag', 'boolean'),
  field('real', 'float64'), field('single', 'float32'), field('raw', 'bytes'), field('list', 'int32', { dimensions: 1 })]);
const ROW = { id: 1, text: 'Zoë', flag: true, real: 1.5, single: 0.25, raw: new Uint8Array([0, 255]), list: '[1]' };

const through = (process, rows, schema = SCHEMA) =>
  transform({ open: () => ({ process }) }, {}, schema, rows);

test('records are kept, rewritten, rejected and dropped', () => {
  const { records, rejected } = through((batch, out) => {
    for (const record of batch) {
      const id = record.after().get(0);
      if (id === 0) out.keep(record);
      else if (id === 1) out.reject(record, new Rejection('NO', 'not this one', { hint: 'another' }));
      else if (id === 2) {
        out.rewrite(record).after([null, 'Ω']).topic('elsewhere').headers([['a', '1'], ['b', null]]).finish();
      } else if (id === 3) out.rewrite(record).set({ text: 'set' }).finish();
    }
  }, [0, 1, 2, 3, 4].map((id) => ({ ...ROW, id })));
  assert.deepEqual(rejected, [{ index: 1, details: { code: 'NO', message: 'not this one', hint: 'another',
    path: undefined } }]);
  assert.deepEqual(records.map(({ origin }) => origin), [0, 2, 3]);
  assert.deepEqual(records[0].row, { ...ROW, id: 0 });
  assert.deepEqual(records[1].row, { id: null, text: 'Ω' });
  assert.equal(records[1].topic, 'elsewhere');
  assert.deepEqual(records[1].headers, [['a', new Uint8Array([49])], ['b', null]]);
  assert.deepEqual(records[2].row, { ...ROW, id: 3, text: 'set' });
});

test('what is kept among much that is dropped takes the others\' bytes not along', () => {
  const schemas = new Schemas();
  const rows = Array.from({ length: 100 }, (_, id) => ({ id, text: 'x'.repeat(1000) }));
  const bytes = encode(SCHEMA, rows, schemas);
  const batch = new Batch(bytes, schemas);
  const out = new Output(batch);
  const records = [...batch.records()];
  out.keep(records[7]);
  out.rewrite(records[50]).set({ text: 'y' }).finish();
  const sent = out.finish();
  assert.ok(sent.length < 1600, `${sent.length}`);
  const read = [...new Batch(sent, schemas).records()].map((record) => record.after().toObject());
  assert.deepEqual(read, [{ id: 7, text: 'x'.repeat(1000) }, { id: 50, text: 'y' }]);
});

test('whole numbers of 64 bits are exact', () => {
  const all = [0, -1, 1, 2 ** 32, -(2 ** 32) - 7, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER, 2n ** 53n, -(2n ** 53n),
    2n ** 63n - 1n, -(2n ** 63n)];
  const { records } = through((batch, out) => {
    for (const record of batch) out.rewrite(record).set({ id: record.after().get(0) }).finish();
  }, all.map((id) => ({ id })));
  assert.deepEqual(records.map(({ row }) => row.id), all);
});

test('another schema', () => {
  const { records } = through((batch, out) => {
    const number = out.define(plainSchema('u', [field('twice', 'int32')]));
    for (const record of batch) out.rewriteAs(record, number).after([record.after().get(0) * 2]).finish();
  }, [{ id: 21 }]);
  assert.deepEqual([records[0].schema.name, records[0].row], ['u', { twice: 42 }]);
});

test('what does not fit is told', () => {
  const wrong = (changes, expected) => assert.throws(() => through((batch, out) => {
    for (const record of batch) out.rewrite(record).set(changes).finish();
  }, [ROW]), expected);
  wrong({ id: '1' }, /`id` takes whole numbers/);
  wrong({ id: 1.5 }, /`id` takes whole numbers/);
  wrong({ id: 2n ** 63n }, /no int64/);
  wrong({ text: 7 }, /`text` takes no number/);
  wrong({ other: 7 }, /no field `other`/);
  assert.throws(() => through((batch, out) => {
    const [record] = batch;
    out.keep(record);
    out.keep(record);
  }, [ROW]), /once/);
});

test('what is no batch is not read', () => {
  const schemas = new Schemas();
  const bytes = encode(SCHEMA, [ROW], schemas);
  for (const length of [0, 3, 16, bytes.length - 1]) {
    assert.throws(() => new Batch(bytes.slice(0, length), schemas), RangeError);
  }
  assert.throws(() => [...new Batch(bytes, new Schemas()).records()], /schema 0/);
  // Whatever a slot or a row says, nothing outside of its record is read.
  for (let at = 16; at < bytes.length; at += 1) {
    const forged = bytes.slice();
    forged[at] = 0xff;
    try {
      for (const record of new Batch(forged, schemas)) {
        record.headers();
        record.after()?.toObject();
      }
    } catch (error) {
      assert.ok(error instanceof RangeError || error instanceof TypeError, `${at}: ${error}`);
    }
  }
});

test('options and errors have the contract\'s form', () => {
  const descriptor = new Descriptor('a', '1', 's')
    .option(OptionSpec.optional('n', Element.integer(1, 9), 'N.').default(3))
    .option(OptionSpec.required('w', Element.oneOf({ a: 'A.' }), 'W.').many().secret());
  assert.deepEqual(descriptor.options.map(({ spec }) => spec), [
    { name: 'n', doc: 'N.', shape: 'one', element: { tag: 'integer', val: { min: 1n, max: 9n } }, required: false,
      default: '3', secret: false },
    { name: 'w', doc: 'W.', shape: 'many', element: { tag: 'one-of', val: [{ name: 'a', doc: 'A.' }] }, required: true,
      default: undefined, secret: true },
  ]);
  const details = { code: 'C', message: 'm', hint: undefined, path: undefined };
  assert.deepEqual(PluginError.retry('C', 'm', { delayMs: 7 }).variant(), { tag: 'retry-after',
    val: { delayMs: 7n, details } });
  assert.deepEqual(PluginError.terminal('C', 'm').variant(), { tag: 'terminal', val: details });
  const config = new Config({ t: 'x', n: 1, f: true, l: ['a'] });
  assert.deepEqual([config.text('t'), config.integer('n'), config.flag('f'), config.texts('l'), config.texts('no')],
    ['x', 1, true, ['a'], []]);
});
