// Where a column's value stands in a document, and what it has to be.

/** What a value of a column may be, and the field's type that carries it. */
const TYPES = {
  text: ['text', (value) => typeof value === 'string'],
  integer: ['int64', (value) => Number.isSafeInteger(value)],
  number: ['float64', (value) => typeof value === 'number'],
  boolean: ['boolean', (value) => typeof value === 'boolean'],
  json: ['json', () => true],
};

export const TYPE_NAMES = Object.keys(TYPES);

/** `address.lines[0]:text` as a column, or what is wrong with it. */
export function column(name, written) {
  const [, path, type = 'text'] = /^(.+?)(?::([a-z]*))?$/.exec(written) ?? [];
  if (!Object.hasOwn(TYPES, type)) return { wrong: `\`${type}\` is none of ${TYPE_NAMES.join(', ')}` };
  const steps = stepsOf(path ?? '');
  if (steps === undefined) return { wrong: `\`${path}\` is no path: write \`address.lines[0]\`` };
  const [scalar, fits] = TYPES[type];
  return { name, path, type, scalar, fits, steps };
}

function stepsOf(path) {
  if (!/^[^.[\]]+(\.[^.[\]]+|\[\d+\])*$/.test(path)) return undefined;
  return [...path.matchAll(/[^.[\]]+/g)].map(([step]) => step);
}

/** The value of a column in a document, or null where it has none. Throws where it has another type. */
export function valueOf(column, document) {
  let value = document;
  for (const step of column.steps) {
    value = value !== null && typeof value === 'object' && Object.hasOwn(value, step) ? value[step] : null;
  }
  if (value === null) return null;
  if (!column.fits(value)) {
    const found = JSON.stringify(value);
    throw new TypeError(`\`${column.path}\` is no ${column.type}: ${found.slice(0, 60)}`);
  }
  return column.type === 'json' ? JSON.stringify(value) : value;
}
