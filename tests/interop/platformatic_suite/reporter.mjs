// Tells the tests of Node's own runner as cases of a suite: a line for each as soon as it has ended.
import { relative } from 'node:path'

export default async function * (source) {
  for await (const { type, data } of source) {
    const isTest = type === 'test:pass' || type === 'test:fail'
    if (!isTest || data.details?.type === 'suite' || data.name.endsWith('.test.ts')) continue
    const name = `${relative(process.cwd(), data.file ?? '')} > ${data.name.replace(/\s+/g, ' ')}`
    const skipped = data.skip !== undefined || data.todo !== undefined
    const word = skipped ? 'skipped' : type === 'test:pass' ? 'ok' : 'FAILED'
    const error = data.details.error?.cause?.message ?? data.details.error?.message
    const why = word === 'FAILED' ? `: ${String(error).replace(/\s+/g, ' ').slice(0, 300)}` : ''
    yield `${word} ${name} (${(data.details.duration_ms / 1000).toFixed(2)} s)${why}\n`
  }
}
