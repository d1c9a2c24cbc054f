// A source that does in one of its functions what it is told.
import { field, plainSchema } from 'towpath-sdk';
import { act, describe } from './harm.js';

export default class Hostile {
  static descriptor() {
    return describe('hostile_js');
  }

  static check() {
    return act('check_config');
  }

  static probe() {
    return act('check');
  }

  static plan() {
    return act('plan');
  }

  static open() {
    act('open');
    return new Hostile();
  }

  poll(budget, out) {
    const said = act('poll');
    const number = out.define(plainSchema('numbers', [field('n', 'int64')]));
    out.record(number).after([1]).finish();
    out.offset('numbers', 1);
    return said;
  }

  commit() {
    return act('commit');
  }

  upstreamEnd() {
    return act('upstream_end');
  }

  hasPassed() {
    return act('has_passed');
  }

  status() {
    return act('status');
  }

  close() {
    return act('close');
  }
}
