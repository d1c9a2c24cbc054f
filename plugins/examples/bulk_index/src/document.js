// A record as the lines of a bulk request.
import { Rejection } from 'towpath-sdk';

/** Bytes that an id may have. */
const ID_BYTES = 512;

const encoder = new TextEncoder();

/** A record that is no document. */
export class Unusable extends Error {
  constructor(code, message) {
    super(message);
    this.rejection = new Rejection(code, message);
  }
}

const DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';

/** Bytes as text. */
export function base64(bytes) {
  let text = '';
  for (let at = 0; at < bytes.length; at += 3) {
    const [a, b = 0, c = 0] = bytes.subarray(at, at + 3);
    const left = bytes.length - at;
    text += DIGITS[a >> 2] + DIGITS[((a & 3) << 4) | (b >> 4)];
    text += (left > 1 ? DIGITS[((b & 15) << 2) | (c >> 6)] : '=') + (left > 2 ? DIGITS[c & 63] : '=');
  }
  return text;
}

function oneLine(field, text) {
  try {
    return JSON.stringify(JSON.parse(text));
  } catch {
    throw new Unusable('BULK_VALUE', `\`${field.name}\` is no JSON`);
  }
}

/** A value as JSON. Arrays and JSON stand in rows as JSON already; whole numbers of 64 bits stay exact. */
function json(field, value) {
  if (value === null) return 'null';
  if (typeof value === 'bigint') return String(value);
  if (typeof value === 'number' && !Number.isFinite(value)) {
    throw new Unusable('BULK_VALUE', `\`${field.name}\` is ${value}, which JSON cannot say`);
  }
  if (value instanceof Uint8Array) return `"${base64(value)}"`;
  if (typeof value === 'string' && (field.type.scalar === 'json' || field.type.dimensions > 0)) {
    // As it stands, but on one line: the request has one line for each document.
    return value.includes('\n') ? oneLine(field, value) : value;
  }
  return JSON.stringify(value);
}

/** The document of a row, without what the source did not tell. */
function documentOf(row) {
  const members = [];
  row.fields.forEach((field, index) => {
    const value = row.get(index);
    if (value !== undefined) members.push(`${JSON.stringify(field.name)}:${json(field, value)}`);
  });
  return `{${members.join(',')}}`;
}

/** What a document is known by: its key, or where the record stands. */
function idOf(record, place) {
  const key = record.key();
  if (key === undefined) return place;
  const values = key.values();
  const id = values.length === 1 && values[0] !== null ? String(values[0]) : JSON.stringify(values.map((it) => String(it)));
  if (id === '' || encoder.encode(id).length > ID_BYTES) {
    throw new Unusable('BULK_ID', `the key is no id: ids have 1 to ${ID_BYTES} bytes`);
  }
  return id;
}

/**
 * The lines of a record; nothing where there is nothing to do. Its offset is the document's version: an older one never
 * replaces a newer one, however often it comes again.
 */
export function linesOf(record, index, place) {
  const op = record.op();
  if (op === 'truncate') throw new Unusable('BULK_TRUNCATE', 'an index is not emptied by a record');
  const row = record.after();
  const isGone = op === 'delete' || op === 'tombstone' || row === undefined;
  if (isGone && record.key() === undefined) return undefined;
  const head = { _index: index, _id: idOf(record, place), version: Number(record.offset()), version_type: 'external_gte' };
  if (isGone) return `${JSON.stringify({ delete: head })}\n`;
  return `${JSON.stringify({ index: head })}\n${documentOf(row)}\n`;
}
