// What a source or a sink may do outside, as far as the YAML grants it. Everything is there at once: a call waits.
import { PluginError } from './error.js';
import { bound } from './host.js';
import { text } from './row.js';

let doubles = {};

/** In a test: what stands in for the world outside. See `testing.js`. */
export function stand(its) {
  doubles = its;
}

/** One call outside. What the host refuses, or what fails there, is thrown as a `PluginError`. */
function call(name, run) {
  const host = bound();
  const its = host === undefined ? doubles[name] : host[name];
  if (its === undefined) {
    const where = host === undefined ? 'there is no host here' : 'a sink keeps no state';
    throw PluginError.terminal('PLUGIN_OUTSIDE', `\`${name}\` cannot be used: ${where}`);
  }
  try {
    return run(its);
  } catch (error) {
    if (error instanceof PluginError || error?.payload?.tag === undefined) throw error;
    throw PluginError.from(error.payload);
  }
}

const encoder = new TextEncoder();

const bytesOf = (value) => (typeof value === 'string' ? encoder.encode(value) : value ?? new Uint8Array());

/** Headers and a body. */
class Message {
  /** `headers` are `[name, value]` each, `body` is bytes or text. */
  constructor(headers, body) {
    this.headers = headers;
    this.body = bytesOf(body);
  }

  /** The first header of this name. */
  header(name) {
    return this.headers.find(([its]) => its.toLowerCase() === name.toLowerCase())?.[1];
  }

  /** The body as UTF-8. */
  text() {
    return text(this.body);
  }

  /** The body as JSON. */
  json() {
    return JSON.parse(this.text());
  }
}

/** A request by HTTP, as a test sees it. */
export class Request extends Message {
  constructor({ method, url, headers, body, timeoutMs }) {
    super(headers, body);
    this.method = method;
    this.url = url;
    this.timeoutMs = timeoutMs;
  }
}

/** An answer by HTTP, whatever its status. */
export class Response extends Message {
  constructor(status, headers = [], body = '') {
    super(headers, body);
    this.status = status;
  }

  /** Whether the status is one of success. */
  get ok() {
    return this.status >= 200 && this.status < 300;
  }
}

/** HTTP, to the hosts of `plugins.NAME.grants.http`. */
export const http = Object.freeze({
  /**
   * Sends a request, and waits for the whole answer. Marks of secrets are replaced in values of headers and in the body.
   * A header without a value is left out.
   */
  send(url, { method = 'GET', headers = {}, body, timeoutMs = 10_000 } = {}) {
    const all = Object.entries(headers).filter(([, value]) => value !== undefined && value !== null);
    const request = { method, url, headers: all.map(([name, value]) => [name, String(value)]), body: bytesOf(body), timeoutMs };
    const answer = call('http', (host) => host.send(request));
    return new Response(answer.status, answer.headers, answer.body);
  },

  /** The header `authorization` of Basic authentication, with a secret option as the password; nothing if it is not given. */
  basicAuth(user, option) {
    const secret = secrets.getAs(option, Form.base64({ before: `${user}:` }));
    return secret && `Basic ${secret.mark}`;
  },

  /** The header `authorization` with a secret option as the token; nothing if it is not given. */
  bearerAuth(option) {
    const secret = secrets.get(option);
    return secret && `Bearer ${secret.mark}`;
  },
});

/** How a secret is sent. */
export const Form = Object.freeze({
  /** As it stands between the quotes of a JSON text. */
  json: Object.freeze({ tag: 'json' }),
  /** Base64 with padding, together with what stands around it, at most 1 KiB each. */
  base64: ({ before = '', after = '' } = {}) => ({ tag: 'base64', val: { before, after } }),
});

/** Secret options, for use without being seen: those that `plugins.NAME.grants.secrets` names. */
export const secrets = Object.freeze({
  /** `{ mark, length }`: what to send in place of the value, and its bytes as it is sent. Nothing if it is not given. */
  get: (option) => call('secrets', (host) => host.get(option)),
  /** The same in another form; there can be 64. */
  getAs: (option, form) => call('secrets', (host) => host.getAs(option, form)),
});

/** A connection by TCP. */
export class Connection {
  #number;

  constructor(number) {
    this.#number = number;
  }

  /** What has come: bytes, none of them where the other side has closed the connection, and `null` for nothing in time. */
  read({ max = 65_536, timeoutMs = 10_000 } = {}) {
    const received = call('tcp', (host) => host.read(this.#number, max, timeoutMs));
    if (received.tag === 'bytes') return received.val;
    return received.tag === 'closed' ? new Uint8Array() : null;
  }

  /** Writes all of it, bytes or text. Marks of secrets are replaced. */
  write(data, { timeoutMs = 10_000 } = {}) {
    call('tcp', (host) => host.write(this.#number, bytesOf(data), timeoutMs));
  }

  close() {
    call('tcp', (host) => host.close(this.#number));
  }
}

/** TCP, to the hosts and ports of `plugins.NAME.grants.tcp`. */
export const tcp = Object.freeze({
  /** Connects; there can be 16 connections at a time. */
  connect(host, port, { timeoutMs = 10_000 } = {}) {
    return new Connection(call('tcp', (its) => its.connect(host, port, timeoutMs)));
  },
});

/** A source's small memory that survives crashes: `plugins.NAME.grants.state`. It is durable with the offsets. */
export const state = Object.freeze({
  /** The bytes under a key; nothing where there are none. */
  get: (key) => call('state', (host) => host.get(key)),
  /** Replaces them by bytes or text; `undefined` removes the key. */
  set: (key, value) => call('state', (host) => host.set(key, value === undefined || value === null ? undefined : bytesOf(value))),
  /** All keys, in order. */
  keys: () => call('state', (host) => host.keys()),
});
