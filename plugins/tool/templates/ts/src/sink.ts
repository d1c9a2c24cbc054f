// The sink `NAME`, in LANGUAGE.
import {
  Descriptor, Element, OptionSpec, PluginError, Rejection, Written, http, type Config, type Delivery, type Record, type Sink,
} from 'towpath-sdk';

/** Sends one field of each record to a URL, a line each. */
export default class TYPE implements Sink {
  static descriptor(): Descriptor {
    return new Descriptor('NAME', '0.1.0', 'Lines, sent to a URL')
      .option(OptionSpec.required('url', Element.nonEmptyText, 'Where to; its host must be granted.'))
      .option(OptionSpec.required('field', Element.nonEmptyText, 'The field to send.'));
  }

  static open(config: Config): TYPE {
    return new TYPE(config.text('url') ?? '', config.text('field') ?? '');
  }

  readonly url: string;
  readonly field: string;

  constructor(url: string, field: string) {
    this.url = url;
    this.field = field;
  }

  write(delivery: Delivery): Written {
    const lines: string[] = [];
    const rejected: [Record, Rejection][] = [];
    for (const record of delivery.batch) {
      const text = record.after()?.byName(this.field);
      if (typeof text === 'string') lines.push(`${text}\n`);
      else rejected.push([record, new Rejection('LINES_FIELD', 'the record has no such text')]);
    }
    // Nothing of a delivery may count in which there is a record that cannot be taken: it comes again without.
    if (rejected.length > 0) return Written.rejected(rejected);
    if (lines.length > 0) {
      const answer = http.send(this.url, { method: 'POST', body: lines.join('') });
      if (!answer.ok) throw PluginError.retry('LINES_STATUS', `the receiver answers with ${answer.status}`);
    }
    return Written.durable();
  }
}
