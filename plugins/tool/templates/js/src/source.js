// The source `NAME`, in LANGUAGE.
import { Descriptor, Element, OptionSpec, PluginError, field, http, plainSchema } from 'towpath-sdk';

const LINES = plainSchema('lines', [field('line', 'text')]);

/** Reads the lines of a page on the web, which gets longer. */
export default class TYPE {
  static descriptor() {
    return new Descriptor('NAME', '0.1.0', 'Lines of a page on the web')
      .exactlyOnce()
      .option(OptionSpec.required('url', Element.nonEmptyText, 'The page; its host must be granted.'));
  }

  static open(config, task, offsets) {
    // Where the last batch ended whose records are durable; nothing is stored before the first.
    const read = offsets.get('lines') ?? '0';
    if (!/^\d+$/.test(read)) throw PluginError.terminal('PAGE_OFFSET', 'the stored number of lines cannot be read');
    return new TYPE(config.text('url'), Number(read));
  }

  constructor(url, read) {
    this.url = url;
    // Lines that have been read.
    this.read = read;
    // Polls to sit out before the page is asked for again.
    this.rest = 0;
  }

  poll(budget, out) {
    if (this.rest > 0) {
      this.rest -= 1;
      return;
    }
    const answer = http.send(this.url);
    if (answer.status !== 200) throw PluginError.retry('PAGE_STATUS', `the page answers with ${answer.status}`);
    const number = out.define(LINES);
    // A last line without its end is still being written.
    const lines = answer.text().split('\n').slice(0, -1);
    while (this.read < lines.length && out.length < budget.records && out.bytes < budget.bytes) {
      // The place of the record: by it a restarted task knows what its topic holds already.
      out.record(number).position(0, this.read).after({ line: lines[this.read] }).finish();
      this.read += 1;
    }
    if (out.length > 0) out.offset('lines', this.read);
    else this.rest = 50;
  }

  status() {
    return `${this.read} lines`;
  }
}
