import assert from 'node:assert/strict';
import { test } from 'node:test';

import { PluginError, Response, openSource, outside } from 'towpath-sdk';
import TYPE from '../MAIN';

test('lines come once, and go on where they were', () => {
  let page = 'a\nb\nhalf a line';
  outside({ http: () => new Response(200, [], page) });
  const first = openSource(TYPE, { url: 'http://example.org' }).poll();
  assert.deepEqual(first.records.map(({ row }) => row.line), ['a', 'b']);
  assert.deepEqual(first.offsets, { lines: '2' });
  page = 'a\nb\nhalf a line and the rest\n';
  const again = openSource(TYPE, { url: 'http://example.org' }, first.offsets).poll();
  assert.deepEqual(again.records.map(({ row }) => row.line), ['half a line and the rest']);
});

test('a page that fails is tried again later', () => {
  outside({ http: () => new Response(503) });
  assert.throws(() => openSource(TYPE, { url: 'http://example.org' }).poll(), PluginError);
});
