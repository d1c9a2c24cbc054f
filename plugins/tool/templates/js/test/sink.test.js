import assert from 'node:assert/strict';
import { test } from 'node:test';

import { PluginError, Response, field, openSink, outside, plainSchema } from 'towpath-sdk';
import TYPE from '../MAIN';

const SCHEMA = plainSchema('logs', [field('message', 'text'), field('n', 'int64')]);
const SETTINGS = { url: 'http://example.org', field: 'message' };

test('lines are sent, and records without one are rejected', () => {
  const sent = [];
  outside({
    http: (request) => {
      sent.push(request.text());
      return new Response(204);
    },
  });
  const { write } = openSink(TYPE, SETTINGS);
  assert.equal(write(SCHEMA, [{ message: 'a' }, { message: 'b' }]).durability, 'durable');
  assert.deepEqual(write(SCHEMA, [{ message: 'c' }, { n: 1 }]).rejected.map(({ index }) => index), [1]);
  assert.deepEqual(sent, ['a\nb\n']);
});

test('a receiver that fails is tried again later', () => {
  outside({ http: () => new Response(503) });
  assert.throws(() => openSink(TYPE, SETTINGS).write(SCHEMA, [{ message: 'a' }]), PluginError);
});
