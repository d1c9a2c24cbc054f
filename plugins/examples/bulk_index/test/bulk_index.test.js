import assert from 'node:assert/strict';
import { test } from 'node:test';

import { PluginError, Response, field, openSink, outside } from 'towpath-sdk';
import { base64 } from '../src/document.js';
import BulkIndex from '../src/index.js';

const SCHEMA = { name: 't', variables: [], key: undefined, computed: [], source: undefined,
  value: [field('id', 'int64'), field('name', 'text'), field('score', 'float64'), field('tags', 'text', { dimensions: 1 }),
    field('raw', 'bytes'), field('body', 'json')] };
const SETTINGS = { url: 'http://search.example.org/', index: 'x-{topic}', timeout: 1000, request_bytes: 1 << 20 };

function target(answer) {
  const asked = [];
  outside({
    http: (request) => {
      asked.push(request);
      return answer(request);
    },
    secrets: { token: 'x' },
  });
  return asked;
}

const taken = (request) => {
  const heads = request.text().split('\n').filter((line) => line.startsWith('{"index"') || line.startsWith('{"delete"'));
  return new Response(200, [], JSON.stringify({ items: heads.map(() => ({ index: { status: 201 } })) }));
};

test('records become documents', () => {
  const asked = target(taken);
  const { write } = openSink(BulkIndex, SETTINGS, { topic: 'Things', partition: 3 });
  const row = { id: 2n ** 60n, name: 'Zoë\n', score: 1.5, tags: '["a"]', raw: new Uint8Array([0, 255]), body: '{"a":\n1}' };
  assert.equal(write(SCHEMA, [row, { id: 2, name: null }]).durability, 'durable');
  const [request] = asked;
  assert.deepEqual([request.method, request.url, request.header('authorization'), request.header('idempotency-key')],
    ['POST', 'http://search.example.org/_bulk', 'Bearer <token>', 'test-id:3:0:0-1']);
  assert.deepEqual(request.text().split('\n'), [
    '{"index":{"_index":"x-things","_id":"Things-3-0","version":0,"version_type":"external_gte"}}',
    '{"id":1152921504606846976,"name":"Zoë\\n","score":1.5,"tags":["a"],"raw":"AP8=","body":{"a":1}}',
    '{"index":{"_index":"x-things","_id":"Things-3-1","version":1,"version_type":"external_gte"}}',
    '{"id":2,"name":null}', '']);
});

test('what cannot be taken is rejected, and where it stands', () => {
  const asked = target(() => new Response(200, [], JSON.stringify({ errors: true, items: [
    { index: { status: 200 } }, { index: { status: 400, error: { type: 'mapper', reason: 'no number' } } },
    { index: { status: 409 } }] })));
  const { write } = openSink(BulkIndex, SETTINGS);
  const { rejected } = write(SCHEMA, [{ id: 1 }, { id: 2 }, { id: 3 }]);
  assert.deepEqual(rejected.map(({ index, details }) => [index, details.code]), [[1, 'BULK_DOCUMENT']]);
  assert.match(rejected[0].details.message, /mapper: no number/);
  // What JSON cannot say is not even sent.
  assert.deepEqual(write(SCHEMA, [{ id: 1 }, { score: NaN }]).rejected.map(({ index }) => index), [1]);
  assert.equal(asked.length, 1);
});

test('the record is found for which a request is refused', () => {
  const asked = target((request) => (request.text().includes('bad') ? new Response(400) : taken(request)));
  const { write } = openSink(BulkIndex, SETTINGS);
  const rows = ['a', 'b', 'bad', 'c', 'd'].map((name) => ({ name }));
  assert.deepEqual(write(SCHEMA, rows).rejected.map(({ index }) => index), [2]);
  assert.ok(asked.length < 8);
});

test('requests have a size', () => {
  const asked = target(taken);
  openSink(BulkIndex, { ...SETTINGS, request_bytes: 1000 }).write(SCHEMA, Array.from({ length: 20 }, (_, id) => ({ id })));
  assert.ok(asked.length > 2);
});

test('failures keep their kinds', () => {
  for (const [answer, tag, code] of [
    [new Response(429, [['Retry-After', '9']]), 'retry-after', 'BULK_BUSY'],
    [new Response(502), 'retry-after', 'BULK_STATUS'], [new Response(401), 'needs-operator', 'BULK_AUTH'],
    [new Response(404), 'needs-operator', 'BULK_STATUS'], [new Response(200, [], 'hello'), 'needs-operator', 'BULK_ANSWER'],
    [new Response(200, [], '{"items":[{"index":{"status":429}}]}'), 'retry-after', 'BULK_BUSY'],
  ]) {
    target(() => answer);
    assert.throws(() => openSink(BulkIndex, SETTINGS).write(SCHEMA, [{ id: 1 }]), (error) => {
      assert.ok(error instanceof PluginError);
      assert.deepEqual([error.tag, error.why.code], [tag, code]);
      if (answer.status === 429) assert.equal(error.delayMs, 9000);
      return true;
    });
  }
});

test('base64', () => {
  for (const text of ['', 'a', 'ab', 'abc', 'abcd']) {
    assert.equal(base64(new TextEncoder().encode(text)), Buffer.from(text).toString('base64'));
  }
});
