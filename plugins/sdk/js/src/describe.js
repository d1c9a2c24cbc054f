// What a plugin says of itself: its name, and its options.

/** What a single value of an option is. */
export const Element = Object.freeze({
  boolean: Object.freeze({ tag: 'boolean' }),
  /** Whole numbers from `min` to `max`, both included. */
  integer: (min, max) => ({ tag: 'integer', val: { min: BigInt(min), max: BigInt(max) } }),
  text: Object.freeze({ tag: 'text' }),
  nonEmptyText: Object.freeze({ tag: 'non-empty-text' }),
  /** A URL with one of these schemes, each without `://`. */
  url: (schemes) => ({ tag: 'url', val: [...schemes] }),
  path: Object.freeze({ tag: 'path' }),
  /** `10s`; read as milliseconds. */
  duration: Object.freeze({ tag: 'duration' }),
  /** `64KiB`; read as bytes. */
  byteSize: Object.freeze({ tag: 'byte-size' }),
  /** One of these words: `{ word: 'what it means' }`. */
  oneOf: (words) => ({ tag: 'one-of', val: Object.entries(words).map(([name, doc]) => ({ name, doc })) }),
  /** Text, number, boolean or null. */
  scalar: Object.freeze({ tag: 'scalar' }),
  /** Any YAML. */
  any: Object.freeze({ tag: 'any' }),
});

/** One option in the YAML. Each method returns a changed copy. */
export class OptionSpec {
  /** `spec` is the contract's `option-spec`. */
  constructor(spec) {
    this.spec = Object.freeze(spec);
  }

  static optional(name, element, doc) {
    return new OptionSpec({ name, doc, shape: 'one', element, required: false, default: undefined, secret: false });
  }

  static required(name, element, doc) {
    return OptionSpec.optional(name, element, doc).#with({ required: true });
  }

  #with(changes) {
    return new OptionSpec({ ...this.spec, ...changes });
  }

  /** It takes a list. */
  many() {
    return this.#with({ shape: 'many' });
  }

  /** It takes several by name. */
  byKey() {
    return this.#with({ shape: 'by-key' });
  }

  /** What counts when it is not given: a value in normal form (milliseconds, bytes). */
  default(value) {
    return this.#with({ default: JSON.stringify(value) });
  }

  /** It is never shown. */
  secret() {
    return this.#with({ secret: true });
  }
}

/** What a plugin says of itself. */
export class Descriptor {
  constructor(name, version, summary) {
    this.name = name;
    this.version = version;
    this.summary = summary;
    this.guarantee = 'at-least-once';
    this.options = [];
  }

  /** Promises that nothing comes twice, of a source or a sink. */
  exactlyOnce() {
    this.guarantee = 'exactly-once';
    return this;
  }

  /** Adds an option. */
  option(option) {
    this.options.push(option);
    return this;
  }
}

/** Something wrong with the options that their types do not show: `path` is the option (`fields[1]`). */
export class Problem {
  constructor(path, message, hint) {
    this.path = path;
    this.message = message;
    this.hint = hint;
  }
}
