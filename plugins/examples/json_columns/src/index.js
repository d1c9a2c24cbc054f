// Takes columns out of a field of nested JSON, so that a sink can write them as columns of a table.
import { Descriptor, Element, OptionSpec, Problem, Rejection, field } from 'towpath-sdk';
import { TYPE_NAMES, column, valueOf } from './columns.js';

export default class JsonColumns {
  static descriptor() {
    return new Descriptor('json_columns', '0.1.0', 'Takes columns out of a field of nested JSON')
      .option(OptionSpec.required('field', Element.nonEmptyText, 'The field that holds JSON.'))
      .option(OptionSpec.required('columns', Element.nonEmptyText,
        `Where each new column stands in the JSON, and its type: \`city: address.city\`, \`total: order.total:number\`. \
Types are ${TYPE_NAMES.join(', ')}; without one it is text.`).byKey())
      .option(OptionSpec.optional('keep', Element.boolean, 'Whether the field stays beside its columns.').default(false));
  }

  static check(config) {
    const problems = [];
    for (const [name, written] of Object.entries(config.json('columns'))) {
      const { wrong } = column(name, written);
      if (wrong !== undefined) problems.push(new Problem(`columns.${name}`, wrong));
    }
    return problems;
  }

  static open(config) {
    return new JsonColumns(config.text('field'), config.json('columns'), config.flag('keep') ?? false);
  }

  #field;
  #columns;
  #keep;
  /** The schema that goes out for each that came in; null where there is no such field. */
  #schemas = new Map();

  constructor(field, columns, keep) {
    this.#field = field;
    this.#columns = Object.entries(columns).map(([name, written]) => column(name, written));
    this.#keep = keep;
  }

  process(batch, out) {
    for (const record of batch) {
      const plan = this.#planOf(record, out);
      const images = [record.before(), record.after()];
      if (plan === null || images.every((row) => row === undefined)) {
        out.keep(record);
        continue;
      }
      let columns;
      try {
        columns = images.map((row) => row && this.#values(row));
      } catch (error) {
        if (!(error instanceof SyntaxError || error instanceof TypeError)) throw error;
        out.reject(record, new Rejection('JSON_COLUMNS', error.message));
        continue;
      }
      const write = (row, values) => (writer) => {
        for (const index of plan.stay) writer.copy(row, index);
        for (const value of values) writer.value(value);
      };
      const rewrite = out.rewriteAs(record, plan.number);
      if (images[0] !== undefined) rewrite.before(write(images[0], columns[0]));
      if (images[1] !== undefined) rewrite.after(write(images[1], columns[1]));
      rewrite.finish();
    }
  }

  #values(row) {
    const text = row.byName(this.#field);
    if (text === null || text === undefined) return this.#columns.map(() => text);
    const document = JSON.parse(text);
    return this.#columns.map((column) => valueOf(column, document));
  }

  #planOf(record, out) {
    const number = record.schemaNumber();
    let plan = this.#schemas.get(number);
    if (plan === undefined) {
      plan = this.#plan(record.schema(), out);
      this.#schemas.set(number, plan);
    }
    return plan;
  }

  #plan(schema, out) {
    const is = ({ name, type }) => name === this.#field && (type.scalar === 'json' || type.scalar === 'text');
    if (!schema.value.some(is)) return null;
    const taken = new Set(this.#columns.map(({ name }) => name));
    const stay = [...schema.value.keys()].filter((index) => {
      const { name } = schema.value[index];
      return !taken.has(name) && (this.#keep || name !== this.#field);
    });
    const value = [...stay.map((index) => schema.value[index]), ...this.#columns.map((it) => field(it.name, it.scalar))];
    const number = out.define({ ...schema, value });
    if (number === undefined) throw new Error('there are too many schemas');
    return { stay, number };
  }
}
