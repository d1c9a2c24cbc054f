// A sink that writes documents by the bulk API of Elasticsearch and OpenSearch.
//
// A document's id is the record's key and its version the record's offset: what comes again after a crash overwrites itself,
// and nothing older replaces anything newer. So does what was taken along with a document that was refused. A topic that was
// deleted and created again begins at version 0: it needs an index of its own.
import { Descriptor, Element, OptionSpec, PluginError, Problem, Written, http } from 'towpath-sdk';
import { Bulk } from './bulk.js';
import { Unusable, linesOf } from './document.js';

const NAME = /^[^A-Z\\/*?"<>| ,#:]+$/;

export default class BulkIndex {
  static descriptor() {
    return new Descriptor('bulk_index', '0.1.0', 'Documents in Elasticsearch or OpenSearch')
      .option(OptionSpec.required('url', Element.url(['http', 'https']), 'The target; its host must be granted.'))
      .option(OptionSpec.optional('index', Element.nonEmptyText, 'The index; `{topic}` is the topic in lower case.').default('{topic}'))
      .option(OptionSpec.optional('token', Element.text, 'Sent as `authorization: Bearer …`.').secret())
      .option(OptionSpec.optional('timeout', Element.duration, 'How long one request may take.').default(30_000))
      .option(OptionSpec.optional('request_bytes', Element.byteSize, 'What one request has at most, but for a larger document.')
        .default(4 << 20));
  }

  static check(config) {
    const index = config.text('index');
    const isName = NAME.test(index.replaceAll('{topic}', 'x')) && !/^[-_+.]/.test(index);
    return isName ? [] : [new Problem('index', `\`${index}\` cannot be an index's name`)];
  }

  static probe(config) {
    const answer = http.send(config.text('url'), {
      headers: { authorization: http.bearerAuth('token') }, timeoutMs: config.integer('timeout'),
    });
    if (!answer.ok) throw PluginError.needsOperator('BULK_STATUS', `the target answers with ${answer.status}`);
    return ['the target answers'];
  }

  static open(config) {
    return new BulkIndex(config);
  }

  constructor(config) {
    this.bulk = new Bulk(config);
    this.index = config.text('index');
    this.requestBytes = config.integer('request_bytes');
  }

  write(delivery) {
    const { partition, topicId, firstOffset, batch } = delivery;
    const index = this.index.replaceAll('{topic}', partition.topic.toLowerCase());
    const key = `${topicId}:${partition.partition}:${firstOffset}`;
    const rejected = [];
    const entries = [];
    for (const record of batch) {
      try {
        const lines = linesOf(record, index, `${partition}-${record.offset()}`);
        if (lines !== undefined) entries.push({ index: record.index, lines });
      } catch (error) {
        if (!(error instanceof Unusable)) throw error;
        rejected.push([record, error.rejection]);
      }
    }
    // Nothing of a delivery may count in which there is a record that cannot be taken: it comes again without.
    if (rejected.length > 0) return Written.rejected(rejected);
    for (const request of this.requests(entries)) rejected.push(...this.bulk.write(request, key));
    return rejected.length > 0 ? Written.rejected(rejected) : Written.durable();
  }

  /** Entries in requests of the size that one may have. */
  * requests(entries) {
    let request = [];
    let bytes = 0;
    for (const entry of entries) {
      // At most three bytes for each unit of the text.
      const most = entry.lines.length * 3;
      if (request.length > 0 && bytes + most > this.requestBytes) {
        yield request;
        [request, bytes] = [[], 0];
      }
      request.push(entry);
      bytes += most;
    }
    if (request.length > 0) yield request;
  }
}
