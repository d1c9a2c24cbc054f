// Sending bulk requests, and what their answers mean.
import { PluginError, Rejection, http } from 'towpath-sdk';

/** What is waited at least where the target asks for patience, and at most. */
const DELAY_MS = 1000;
const DELAY_MOST_MS = 3_600_000;

/** How long `Retry-After` says to wait: seconds, or a date. */
export function delayMs(retryAfter) {
  const text = (retryAfter ?? '').trim();
  const delay = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now();
  return Number.isNaN(delay) ? DELAY_MS : Math.min(Math.max(delay, DELAY_MS), DELAY_MOST_MS);
}

/** What a status means that is no success; `undefined` where a record is at fault, and which one has to be found. */
function failure(answer) {
  const { status } = answer;
  if (status === 429 || status === 503) {
    const delay = delayMs(answer.header('retry-after'));
    return PluginError.retry('BULK_BUSY', `the target asks to come again later (${status})`, { delayMs: delay });
  }
  if (status >= 500 || status === 408) return PluginError.retry('BULK_STATUS', `the target answers with ${status}`);
  if (status === 401 || status === 403) {
    return PluginError.needsOperator('BULK_AUTH', `the target answers with ${status}`, { hint: 'look at `token`, and at what it may write' });
  }
  if ([400, 413, 422].includes(status)) return undefined;
  return PluginError.needsOperator('BULK_STATUS', `the target answers with ${status}`, { hint: 'look at `url`' });
}

/** Why the target refuses a document, in its own words. */
function reason(item) {
  const { type, reason: said } = item.error ?? {};
  return `the target refuses the document (${item.status}): ${[type, said].filter(Boolean).join(': ') || 'it does not say why'}`;
}

/** A target as the options describe it. */
export class Bulk {
  constructor(config) {
    this.url = `${config.text('url').replace(/\/+$/, '')}/_bulk`;
    this.timeoutMs = config.integer('timeout');
    this.headers = { 'content-type': 'application/x-ndjson', authorization: http.bearerAuth('token') };
  }

  /**
   * Writes entries (`{ index, lines }` each), and returns those that the target will never take: `[index, Rejection]` each.
   * `key` tells the target that a request is the same when it comes again.
   */
  write(entries, key) {
    if (entries.length === 0) return [];
    const headers = { ...this.headers, 'idempotency-key': `${key}:${entries[0].index}-${entries.at(-1).index}` };
    const body = entries.map(({ lines }) => lines).join('');
    const answer = http.send(this.url, { method: 'POST', headers, body, timeoutMs: this.timeoutMs });
    if (answer.ok) return this.#refused(entries, answer);
    const error = failure(answer);
    if (error !== undefined) throw error;
    if (entries.length === 1) {
      return [[entries[0].index, new Rejection('BULK_REFUSED', `the target refuses the request (${answer.status})`)]];
    }
    // One of them, or all together, is more than it takes.
    const middle = entries.length >> 1;
    return [...this.write(entries.slice(0, middle), key), ...this.write(entries.slice(middle), key)];
  }

  #refused(entries, answer) {
    let items;
    try {
      ({ items } = answer.json());
    } catch {
      items = undefined;
    }
    if (!Array.isArray(items) || items.length !== entries.length) {
      throw PluginError.needsOperator('BULK_ANSWER', 'the target does not say what became of each document',
        { hint: '`url` is that of an Elasticsearch or OpenSearch, without a path' });
    }
    const rejected = [];
    items.forEach((it, at) => {
      const item = it.index ?? it.delete ?? {};
      const { status } = item;
      // A conflict: the target holds a newer version. A document that is not there needs no deletion.
      if ((status >= 200 && status < 300) || status === 409 || (status === 404 && it.delete)) return;
      if (!(status >= 400 && status < 500) || status === 429) {
        throw PluginError.retry('BULK_BUSY', `the target could not take every document (${status})`);
      }
      rejected.push([entries[at].index, new Rejection('BULK_DOCUMENT', reason(item))]);
    });
    return rejected;
  }
}
