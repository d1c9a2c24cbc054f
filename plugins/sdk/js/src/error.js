// How a plugin says that something went wrong. Only Towpath decides when to try again.

/** Why a record cannot be handled, now or ever. */
export class Rejection {
  constructor(code, message, { hint, path } = {}) {
    this.code = code;
    this.message = message;
    this.hint = hint;
    this.path = path;
  }

  details() {
    const { code, message, hint, path } = this;
    return { code: String(code), message: String(message), hint, path };
  }
}

/** A failure of the plugin itself. Any other error that is thrown ends the instance, as a crash does. */
export class PluginError extends Error {
  constructor(tag, delayMs, why) {
    super(why.message);
    this.name = 'PluginError';
    this.tag = tag;
    this.delayMs = delayMs;
    this.why = why;
  }

  /** The world may heal by itself. */
  static retry(code, message, { delayMs = 1000, ...more } = {}) {
    return new PluginError('retry-after', delayMs, new Rejection(code, message, more));
  }

  /** Somebody has to change something outside. */
  static needsOperator(code, message, more) {
    return new PluginError('needs-operator', 0, new Rejection(code, message, more));
  }

  /** Going on would lose or falsify data, or can never work. */
  static terminal(code, message, more) {
    return new PluginError('terminal', 0, new Rejection(code, message, more));
  }

  /** In the form of the contract's `error`. */
  variant() {
    const details = this.why.details();
    return this.tag === 'retry-after'
      ? { tag: this.tag, val: { delayMs: BigInt(this.delayMs), details } }
      : { tag: this.tag, val: details };
  }

  /** A failure that the host tells, out of the contract's `error`. */
  static from({ tag, val }) {
    const { code, message, hint, path } = tag === 'retry-after' ? val.details : val;
    const delayMs = tag === 'retry-after' ? Number(val.delayMs) : 0;
    return new PluginError(tag, delayMs, new Rejection(code, message, { hint, path }));
  }
}
