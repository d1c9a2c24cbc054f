// A sink that does in one of its functions what it is told.
import { Written } from 'towpath-sdk';
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

  static open() {
    act('open');
    return new Hostile();
  }

  assign() {
    return act('assign');
  }

  write() {
    return act('write') ?? Written.accepted();
  }

  flush() {
    return act('flush');
  }

  revoke() {
    return act('revoke');
  }

  close() {
    return act('close');
  }
}
