// What the host does for a plugin. Outside of it, as in tests: the machine's own.
import { narrow } from './row.js';

let host;

/** Takes the interfaces of the contract; the entry that the build writes calls it. */
export function bind(interfaces) {
  host = interfaces;
  // The engine has no clock, no chance and no console of its own here.
  Date.now = nowMs;
  Math.random = () => new DataView(random(4).buffer).getUint32(0) / 2 ** 32;
  const line = (level) => (...values) => log(level, values.map(shown).join(' '));
  globalThis.console = { debug: line('debug'), log: line('info'), info: line('info'), warn: line('warn'),
    error: line('error') };
}

/** The bound interfaces, or nothing outside of Towpath. */
export const bound = () => host;

function shown(value) {
  if (typeof value === 'string') return value;
  if (value instanceof Error) return `${value.stack ?? value}`;
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return String(value);
  }
}

/** Writes a line into Towpath's log: `debug`, `info`, `warn` or `error`. */
export function log(level, message) {
  host?.log.write(level, String(message));
}

const localNow = Date.now;

/** Milliseconds since 1970 UTC. */
export function nowMs() {
  return host ? Number(host.clock.nowMs()) : localNow();
}

/** Nanoseconds of a clock that never goes back, as a bigint. */
export function monotonicNs() {
  return host ? host.clock.monotonicNs() : BigInt(Math.round(performance.now() * 1e6));
}

/** Random bytes, at most 64 KiB of them. */
export function random(length) {
  return host ? host.random.bytes(length) : crypto.getRandomValues(new Uint8Array(length));
}

/** The options of this instance, validated, with defaults filled in. */
export class Config {
  #settings;

  /** `settings` are the options of a test: `new Config({ field: 'level' })`. */
  constructor(settings) {
    this.#settings = settings;
  }

  #own(name, type) {
    const value = this.#settings[name];
    return typeof value === type ? value : undefined;
  }

  text(name) {
    return this.#settings ? this.#own(name, 'string') : host.config.text(name);
  }

  /** A number, a duration in milliseconds, or a size in bytes. */
  integer(name) {
    if (this.#settings) return this.#own(name, 'number');
    const value = host.config.integer(name);
    return value === undefined ? undefined : narrow(value);
  }

  flag(name) {
    return this.#settings ? this.#own(name, 'boolean') : host.config.flag(name);
  }

  /** The texts of a list; empty where there is none. */
  texts(name) {
    return this.#settings ? [...(this.#settings[name] ?? [])] : host.config.texts(name);
  }

  /** Any option, as the value that it is. */
  json(name) {
    if (this.#settings) return this.#settings[name];
    const text = host.config.json(name);
    return text === undefined ? undefined : JSON.parse(text);
  }
}
