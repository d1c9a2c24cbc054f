// The transform `NAME`, in LANGUAGE.
import { Descriptor, Element, OptionSpec } from 'towpath-sdk';

/** Drops records whose field holds a certain text. */
export default class TYPE {
  static descriptor() {
    return new Descriptor('NAME', '0.1.0', 'Drops records whose field holds a certain text')
      .option(OptionSpec.required('field', Element.nonEmptyText, 'The field to look at.'))
      .option(OptionSpec.required('text', Element.text, 'Records that hold this text are dropped.'));
  }

  static open(config) {
    return new TYPE(config.text('field'), config.text('text'));
  }

  constructor(field, text) {
    this.field = field;
    this.text = text;
  }

  process(batch, out) {
    for (const record of batch) {
      if (record.after()?.byName(this.field) !== this.text) out.keep(record);
    }
  }
}
