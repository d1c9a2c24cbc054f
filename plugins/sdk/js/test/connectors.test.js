import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Batch, Descriptor, Form, PluginError, Records, Rejection, Response, Schemas, Written, field, http, openSink, openSource,
  outside, plainSchema, secrets, state, tcp } from '../src/index.js';
import { sinkExports, sourceExports } from '../src/component.js';

const SCHEMA = { ...plainSchema('t', [field('id', 'int64'), field('text', 'text')]), key: [field('id', 'int64')] };

test('records are written with what belongs to them', () => {
  const schemas = new Schemas();
  const out = new Records(schemas);
  assert.equal(out.bytes, 0);
  const number = out.define(SCHEMA);
  out.record(number).op('create').timestampMs(5).key([1]).before({ id: 1 }).after((row) => row.value(2))
    .headers([['h', 'v'], ['n', null]]).topic('there').partition(4).flat(true).position(2n ** 63n, 258).finish();
  out.record(number); // Without an end it is none.
  out.record(number).after({ text: 'b' }).position(3, 'here').finish();
  assert.throws(() => out.record(number).after({ other: 1 }), /no field `other`/);
  assert.throws(() => out.record(number + 1), /schema/);
  assert.throws(() => out.record(number).position(0, -1), RangeError);
  assert.throws(() => out.reject('a', 'b', 'why'), TypeError);
  assert.equal(out.length, 2);
  const batch = new Batch(out.finish(), schemas);
  const [first, second] = batch.records();
  assert.deepEqual([first.op(), first.timestampMs(), first.offset(), first.partition(), first.isFlat(), first.topic()],
    ['create', 5, -1, 4, true, 'there']);
  assert.deepEqual([first.key().toObject(), first.before().toObject(), first.after().toObject()], [{ id: 1 }, { id: 1 }, { id: 2 }]);
  assert.deepEqual(first.headers(), [['h', new Uint8Array([118])], ['n', null]]);
  const place = (record) => {
    const [start, length] = record.slot(80);
    return [batch.view.getBigUint64(record.at + 32, true), [...batch.bytes.subarray(start, start + length)]];
  };
  assert.deepEqual(place(first), [2n ** 63n, [0, 0, 0, 0, 0, 0, 1, 2]]);
  assert.deepEqual(place(second), [3n, [...Buffer.from('here')]]);
  assert.deepEqual([second.op(), second.key(), second.partition(), second.topic()], [undefined, undefined, undefined, undefined]);
});

class Numbers {
  static descriptor() {
    return new Descriptor('numbers', '1', 's').exactlyOnce();
  }

  static open(config, task, offsets) {
    return Object.assign(new Numbers(), { next: Number(offsets.get('n') ?? 0), end: config.integer('end'), commits: [] });
  }

  poll(budget, out) {
    if (this.next === this.end) return 'end';
    const number = out.define(SCHEMA);
    for (; this.next < this.end && out.length < budget.records; this.next += 1) {
      if (this.next === 3) out.reject('number 3', '3', new Rejection('NO', 'a three'));
      else out.record(number).after([this.next]).finish();
    }
    out.offset('n', this.next);
    return undefined;
  }

  commit(offsets) {
    this.commits.push(offsets.get('n'));
  }
}

test('a source is read, and goes on where it was', () => {
  const { poll } = openSource(Numbers, { end: 5 });
  const first = poll({ records: 2 });
  assert.deepEqual([first.records.map(({ row }) => row.id), first.offsets, first.end], [[0, 1], { n: '2' }, false]);
  const second = openSource(Numbers, { end: 5 }, first.offsets).poll();
  assert.deepEqual(second.records.map(({ row }) => row.id), [2, 4]);
  assert.equal(second.rejected[0].position, 'number 3');
  assert.equal(openSource(Numbers, { end: 5 }, second.offsets).poll().end, true);
  assert.throws(() => openSource({ open: () => ({ poll: async () => {} }) }, {}).poll(), /async/);
  assert.throws(() => openSource({ open: () => ({ poll: () => 7 }) }, {}).poll(), /returns nothing/);
});

/** A host that has no options and one schema. */
const host = () => {
  const logged = [];
  return {
    logged,
    log: { write: (level, line) => logged.push([level, line]) },
    config: { integer: () => 5n, text: () => undefined },
    clock: { nowMs: () => 0n },
    schemas: { define: () => 7, get: () => undefined },
    random: {},
  };
};

// These bind a host for good: they come last but for those that look at it.
test('the exports of a source have the contract\'s form', () => {
  const bound = host();
  const { sources } = sourceExports(Numbers, bound);
  assert.throws(() => sources.poll({ bytes: 100, records: 100 }), ({ tag, val }) => tag === 'terminal' && val.code === 'PLUGIN_NOT_OPEN');
  assert.equal(sources.promise(), 'exactly-once');
  assert.deepEqual([sources.check(), sources.plan(3)], [[], [{ index: 0, assignment: '' }]]);
  assert.equal(sources.open({ index: 0, assignment: '' }, [{ partition: 'n', place: '1' }, { partition: 'x' }]), 'running');
  const { found, status } = sources.poll({ bytes: 100, records: 100 });
  assert.deepEqual([found.tag, found.val.offsets, found.val.rejected.length, status],
    ['records', [{ partition: 'n', place: '5' }], 1, 'running']);
  assert.deepEqual(sources.poll({ bytes: 1, records: 1 }).found, { tag: 'end' });
  assert.deepEqual([sources.upstreamEnd(), sources.hasPassed([], { document: '', text: '' })], [undefined, false]);
  sources.commit([{ partition: 'n', place: '5' }]);
  sources.close();
  const failing = (error) => sourceExports({ probe: () => { throw error; } }, bound).sources.check();
  const told = [PluginError.retry('A', 'a'), PluginError.terminal('B', 'b')];
  assert.throws(() => failing(new AggregateError(told)), (all) => all.map(({ tag }) => tag).join() === 'retry-after,terminal');
  assert.throws(() => failing(told[0]), (all) => all.length === 1);
  let thrown = 'nothing';
  try {
    failing(new AggregateError([told[0], new Error('on purpose')]));
  } catch (error) {
    thrown = error;
  }
  // What is no answer must not look like a list.
  assert.equal(thrown, undefined);
  assert.match(bound.logged.at(-1)[1], /AggregateError/);
});

test('a sink is given rows, and tells how far they are safe', () => {
  const written = [];
  class Sink {
    static open() {
      return new Sink();
    }

    write({ batch }) {
      const bad = [...batch].filter((record) => record.after().get(0) === 13);
      if (bad.length > 0) return Written.rejected(bad.map((record) => [record, new Rejection('NO', 'unlucky')]));
      written.push(...[...batch].map((record) => record.after().get(0)));
      return Written.accepted();
    }

    flush() {}
  }
  const { sinks } = sinkExports(Sink, undefined);
  sinks.open();
  const { write, flush } = openSink(Sink, {});
  assert.deepEqual(write(SCHEMA, [{ id: 1 }, { id: 2 }]), { durability: 'accepted', rejected: [] });
  assert.deepEqual(write(SCHEMA, [{ id: 1 }, { id: 13 }]).rejected.map(({ index }) => index), [1]);
  assert.deepEqual(flush().map(([partition, next]) => [`${partition}`, next]), [['test-0', 2]]);
  assert.deepEqual(written, [1, 2]);
  assert.throws(() => openSink({ open: () => ({ write: () => 7 }) }, {}).write(SCHEMA, []), /returns a Written/);
  assert.throws(() => openSink({ open: () => ({ write: () => Written.accepted() }) }, {}).write(SCHEMA, []), /without `flush`/);
});

test('the exports of a sink have the contract\'s form', () => {
  const seen = [];
  const { sinks } = sinkExports({
    open: () => ({
      assign: (added) => added.map(({ partition, topicId }) => [partition, topicId.length]),
      write: ({ partition, firstOffset, nextOffset }) => (seen.push(`${partition}`, firstOffset, nextOffset), Written.durable()),
      revoke: (removed) => seen.push(...removed.map(String)),
    }),
  }, undefined);
  const [partition, topicId] = [{ topic: 'a-b', partition: 3 }, 'xyz'];
  sinks.open();
  assert.deepEqual(sinks.assign([{ partition, topicId }]), [{ partition, nextOffset: 3n }]);
  const batch = new Records(new Schemas()).finish();
  assert.deepEqual(sinks.write({ partition, topicId, firstOffset: 3n, nextOffset: 9n, batch }), { durability: 'durable', rejected: [] });
  assert.deepEqual(sinks.flush(), [{ partition, nextOffset: 9n }]);
  sinks.revoke([partition]);
  assert.deepEqual([sinks.flush(), seen], [[], ['a-b-3', 3, 9, 'a-b-3']]);
  assert.throws(() => sinks.write({ partition, topicId, firstOffset: 3n, nextOffset: 9n, batch: new Uint8Array() }),
    ({ val }) => val.code === 'PLUGIN_BATCH');
});

test('what is outside is what a test lets stand in for it', () => {
  outside();
  for (const call of [() => http.send('http://a'), () => secrets.get('a'), () => state.keys(), () => tcp.connect('a', 1)]) {
    assert.throws(call, (error) => error instanceof PluginError && error.why.code === 'PLUGIN_OUTSIDE');
  }
  const asked = [];
  const kept = new Map();
  outside({
    http: (request) => {
      asked.push(request);
      return new Response(201, [['X-A', '1']], '{"a":1}');
    },
    secrets: { token: 'väl' },
    state: kept,
  });
  const answer = http.send('http://a/b', { method: 'PUT', headers: { a: 1, b: undefined, authorization: http.bearerAuth('token') }, body: 'ü' });
  assert.deepEqual([answer.status, answer.ok, answer.header('x-a'), answer.json()], [201, true, '1', { a: 1 }]);
  const [{ method, url, headers, body, timeoutMs }] = asked;
  assert.deepEqual([method, url, headers, [...body], timeoutMs],
    ['PUT', 'http://a/b', [['a', '1'], ['authorization', 'Bearer <token>']], [0xc3, 0xbc], 10_000]);
  assert.deepEqual([secrets.get('token'), secrets.get('other'), secrets.getAs('token', Form.json).mark, http.basicAuth('u', 'token')],
    [{ mark: '<token>', length: 4 }, undefined, '<token>', 'Basic <token>']);
  state.set('k', 'v');
  assert.deepEqual([[...state.get('k')], state.keys()], [[118], ['k']]);
  state.set('k', undefined);
  assert.equal(kept.size, 0);
});

test('a host that refuses is told as it says', () => {
  const details = { code: 'PLUGIN_GRANT', message: 'no', hint: 'grants' };
  const refuse = (payload) => () => { throw Object.assign(new Error('refused'), { payload }); };
  const { sources } = sourceExports({
    open: () => ({ poll() { http.send('http://a'); } }),
    probe: () => tcp.connect('a', 1),
  }, { ...host(), http: { send: refuse({ tag: 'needs-operator', val: details }) },
    tcp: { connect: refuse({ tag: 'retry-after', val: { delayMs: 5n, details } }) } });
  sources.open({ index: 0, assignment: '' }, []);
  assert.throws(() => sources.poll({ bytes: 1, records: 1 }), { tag: 'needs-operator', val: { ...details, path: undefined } });
  assert.throws(() => sources.check(), ([it]) => it.tag === 'retry-after' && it.val.delayMs === 5n);
});
