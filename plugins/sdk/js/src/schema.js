// The shapes of records.
import { kindOf } from './row.js';
import { bound } from './host.js';

/** A field that can be null. `type` is a scalar (`text`, `int64` …); `more` are the other parts of a field. */
export function field(name, type, { dimensions = 0, ...more } = {}) {
  return { name, type: { scalar: type, dimensions }, nullable: true, sourceType: undefined, renamedFrom: undefined,
    initial: undefined, id: undefined, ...more };
}

/** A schema of plain records. */
export function plainSchema(name, value) {
  return { name, variables: [], key: undefined, value, computed: [], source: undefined };
}

const fieldIn = ({ fieldType, ...rest }) => ({ ...rest, type: fieldType });
const fieldOut = ({ type, ...rest }) => ({ ...rest, fieldType: type });

/** A schema between the contract's form and the author's. */
const mapped = (schema, each) => ({
  ...schema,
  key: schema.key?.map(each),
  value: schema.value.map(each),
  source: schema.source && { ...schema.source, fields: schema.source.fields.map(each) },
});

/** Fields, and what is looked up of them for every record. */
export function shapeOf(fields) {
  return {
    fields,
    kinds: fields.map(({ type }) => kindOf(type)),
    index: new Map(fields.map(({ name }, index) => [name, index]).reverse()),
  };
}

/** The schemas that an instance knows by number: each is asked for once. */
export class Schemas {
  #known = new Map();

  /** A schema with its shapes, or nothing. */
  get(number) {
    const known = this.#known.get(number);
    if (known !== undefined) return known;
    const schema = bound()?.schemas.get(number);
    return schema === undefined ? undefined : this.#keep(number, mapped(schema, fieldIn));
  }

  /** A number for a schema; nothing when there are too many, or it is too large. */
  define(schema) {
    const host = bound();
    let number = [...this.#known].find(([, known]) => known.schema === schema)?.[0];
    if (number !== undefined) return number;
    if (host) {
      try {
        number = host.schemas.define(mapped(schema, fieldOut));
      } catch (refusal) {
        if (refusal?.payload === undefined) throw refusal;
        return undefined;
      }
    } else {
      number = this.#known.size;
    }
    this.#keep(number, schema);
    return number;
  }

  #keep(number, schema) {
    const known = {
      schema,
      key: schema.key && shapeOf(schema.key),
      value: shapeOf(schema.value),
      source: schema.source && shapeOf(schema.source.fields),
    };
    this.#known.set(number, known);
    return known;
  }
}
