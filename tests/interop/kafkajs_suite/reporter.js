// Tells jest's tests as cases of a suite: a line for each once its file has ended.
const { relative } = require('path')

const WORDS = { passed: 'ok', failed: 'FAILED' }

module.exports = class {
  onTestResult (_, { testFilePath, testResults }) {
    for (const { status, fullName, duration, failureMessages } of testResults) {
      const word = WORDS[status] || 'skipped'
      const why = word === 'FAILED' ? `: ${(failureMessages[0] || '').replace(/\s+/g, ' ').slice(0, 300)}` : ''
      const file = relative(process.cwd(), testFilePath)
      process.stdout.write(`${word} ${file} > ${fullName.replace(/\s+/g, ' ')} (${((duration || 0) / 1000).toFixed(2)} s)${why}\n`)
    }
  }
}
