// The transform `NAME`, in LANGUAGE.
import { Descriptor, Element, OptionSpec, type Batch, type Config, type Output, type Transform } from 'towpath-sdk';

/** Drops records whose field holds a certain text. */
export default class TYPE implements Transform {
  static descriptor(): Descriptor {
    return new Descriptor('NAME', '0.1.0', 'Drops records whose field holds a certain text')
      .option(OptionSpec.required('field', Element.nonEmptyText, 'The field to look at.'))
      .option(OptionSpec.required('text', Element.text, 'Records that hold this text are dropped.'));
  }

  static open(config: Config): TYPE {
    return new TYPE(config.text('field') ?? '', config.text('text') ?? '');
  }

  readonly field: string;
  readonly text: string;

  constructor(field: string, text: string) {
    this.field = field;
    this.text = text;
  }

  process(batch: Batch, out: Output): void {
    for (const record of batch) {
      if (record.after()?.byName(this.field) !== this.text) out.keep(record);
    }
  }
}
