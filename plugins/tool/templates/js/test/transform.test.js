import assert from 'node:assert/strict';
import { test } from 'node:test';

import { field, plainSchema, transform } from 'towpath-sdk';
import TYPE from '../MAIN';

test('records that hold the text are dropped', () => {
  const schema = plainSchema('lines', [field('level', 'text'), field('n', 'int64')]);
  const rows = [{ level: 'info', n: 1 }, { level: 'debug', n: 2 }, { n: 3 }];
  const { records } = transform(TYPE, { field: 'level', text: 'debug' }, schema, rows);
  assert.deepEqual(records.map(({ row }) => row.n), [1, 3]);
});
