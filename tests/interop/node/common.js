'use strict'
// What the scripts of the Node clients share: cases, deadlines and the records that have to come back unchanged.

const { randomUUID } = require('node:crypto')

const DEADLINE_MS = 60_000

/** A name that no other run has used. */
const name = what => `${what}-${randomUUID().slice(0, 13)}`

function fail (what) {
  throw new Error(what)
}

function show (value) {
  const text = JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? `${v}n` : v)) ?? String(value)
  return text.length > 600 ? `${text.slice(0, 600)}…` : text
}

function equal (seen, expected, what) {
  if (show(seen) !== show(expected) || JSON.stringify(plain(seen)) !== JSON.stringify(plain(expected))) {
    fail(`${what}: ${show(seen)} instead of ${show(expected)}`)
  }
}

const plain = value => JSON.parse(JSON.stringify(value ?? null, (_, v) => (typeof v === 'bigint' ? `${v}n` : v)))

/** Rejects when the promise takes too long. */
function within (promise, what, ms = DEADLINE_MS) {
  let timer
  const late = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${ms} ms: ${what()}`)), ms)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

/** Asks until the condition holds. */
async function until (condition, what) {
  const end = Date.now() + DEADLINE_MS
  while (!(await condition())) {
    if (Date.now() > end) fail(`not within ${DEADLINE_MS} ms: ${what()}`)
    await new Promise(resolve => setTimeout(resolve, 10))
  }
}

/** Asks until the answer is the expected one: metadata travels to the broker that answers. */
async function eventually (ask, expected, what) {
  let seen
  await until(async () => {
    seen = await ask()
    return show(seen) === show(expected)
  }, () => `${what}: ${show(seen)} instead of ${show(expected)}`)
}

async function refused (promise, matches, what) {
  try {
    await promise
  } catch (error) {
    if (!matches(error)) throw error
    return
  }
  fail(`${what}: the broker accepted what it had to refuse`)
}

function bytes (length, seed) {
  const made = Buffer.alloc(length)
  for (let i = 0; i < length; i++) made[i] = (seed * 31 + i) & 0xff
  return made
}

/** Keys and values with all that a log must keep apart: null and empty, every byte, something big. */
function records (count = 120, big = 200_000) {
  const made = []
  for (let i = 0; i < count; i++) {
    made.push({
      key: i % 7 === 3 ? null : i % 7 === 5 ? Buffer.alloc(0) : Buffer.from(`key-${i}`),
      value: i % 11 === 5 ? Buffer.alloc(0) : i % 11 === 7 ? null : bytes(i * 3, i),
      headers: i % 3 ? [] : [['h', bytes(256, i)], ['empty', Buffer.alloc(0)], ['größe', Buffer.from('ü')]]
    })
  }
  made.push({ key: Buffer.from('big'), value: bytes(big, 7), headers: [] })
  return made
}

const text = r => [r.key, r.value, ...r.headers.flat()]
  .map(part => (part === null || part === undefined ? 'null' : `"${Buffer.from(part).toString('base64')}"`)).join(' ')

async function run (cases) {
  const begin = Date.now()
  for (const [title, body] of Object.entries(cases)) {
    const start = Date.now()
    try {
      await within(body(), () => `the end of ${title}`, 3 * DEADLINE_MS)
    } catch (error) {
      console.error(error)
      console.log(`FAILED ${title}: ${error.message}`)
      process.exit(1)
    }
    console.log(`ok ${title} (${((Date.now() - start) / 1000).toFixed(2)} s)`)
  }
  console.log(`${Object.keys(cases).length} passed, 0 failed`)
  console.log(`done in ${((Date.now() - begin) / 1000).toFixed(1)} s`)
  process.exit(0)
}

/** Cases that want a broker with something (`transactions`, `groups`): INTEROP_WITH says what it has. */
function having (what, cases) {
  return (process.env.INTEROP_WITH ?? '').includes(what) ? cases : {}
}

function bootstrap () {
  if (process.argv.length !== 3) {
    console.error(`usage: ${process.argv[1]} HOST:PORT`)
    process.exit(2)
  }
  return process.argv[2]
}

module.exports = { name, fail, show, equal, eventually, within, until, refused, bytes, records, text, run, having, bootstrap }
