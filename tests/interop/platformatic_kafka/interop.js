'use strict'
// @platformatic/kafka against a broker: node interop.js HOST:PORT

const { Admin, Consumer, Producer, compressionsAlgorithms } = require('@platformatic/kafka')
const { bootstrap, bytes, equal, eventually, fail, having, name, records, refused, run, text, until } = require('../node/common.js')

const server = bootstrap()
const base = { clientId: 'platformatic', bootstrapBrokers: [server], retries: 5, retryDelay: 50, timeout: 20_000 }
const admin = new Admin(base)
const TOPIC = 2

/** Whether an error holds one with the given id of the protocol. */
const is = id => error => {
  const all = [error]
  for (let i = 0; i < all.length; i++) {
    if (all[i].apiId === id) return true
    all.push(...(all[i].errors ?? []), ...(all[i].cause ? [all[i].cause] : []))
  }
  return false
}

async function create (partitions = 1, configs = {}) {
  const topic = name('platformatic')
  const list = Object.entries(configs).map(([name, value]) => ({ name, value }))
  await admin.createTopics({ topics: [topic], partitions, replicas: 1, configs: list })
  return topic
}

// This client sends null for what is undefined; it has no null header.
const message = (topic, partition) => r => ({
  topic, partition, key: r.key ?? undefined, value: r.value ?? undefined, timestamp: r.timestamp,
  headers: new Map((r.headers ?? []).map(([k, v]) => [Buffer.from(k), v]))
})

async function produce (topic, items, { partition = 0, acks = -1, compression = 'none', idempotent = false } = {}) {
  const producer = new Producer({ ...base, autocreateTopics: false })
  try {
    return await producer.send({ messages: items.map(message(topic, partition)), acks, compression, idempotent })
  } finally {
    await producer.close()
  }
}

function consumer (groupId, options = {}) {
  return new Consumer({
    ...base, groupId, autocommit: false, maxWaitTime: 100, sessionTimeout: 10_000, rebalanceTimeout: 10_000,
    heartbeatInterval: 300, ...options
  })
}

/** Reads by a group of its own. */
async function consume (topic, count, options = {}) {
  const reader = consumer(name('reader'))
  const seen = []
  const stream = await reader.consume({ topics: [topic], mode: 'earliest', ...options })
  stream.on('data', m => seen.push(m))
  stream.on('error', error => { stream.failed = error })
  await until(() => stream.failed || seen.length >= count, () => `${count} records, there were ${seen.length}`)
  if (stream.failed) throw stream.failed
  await reader.close(true)
  return seen
}

const plain = m => ({
  key: m.key, value: m.value, headers: [...m.headers.entries()].map(([k, v]) => [k.toString(), v])
})

async function partitionsOf (topic) {
  const { topics } = await admin.metadata({ topics: [topic], forceUpdate: true })
  return topics.get(topic).partitionsCount
}

async function adminCase () {
  const topic = name('platformatic')
  const [created] = await admin.createTopics({
    topics: [topic], partitions: 3, replicas: 1, configs: [{ name: 'retention.ms', value: '7200000' }]
  })
  equal([created.name, created.partitions, created.replicas], [topic, 3, 1], 'the answer')
  equal(created.configuration['retention.ms'].value ?? created.configuration['retention.ms'], '7200000', 'retention.ms')
  await refused(admin.createTopics({ topics: [topic], partitions: 3, replicas: 1 }), is('TOPIC_ALREADY_EXISTS'), 'again')
  await refused(admin.createTopics({ topics: ['no/such name'], partitions: 1, replicas: 1 }),
    is('INVALID_TOPIC_EXCEPTION'), 'a bad name')
  await eventually(async () => (await admin.listTopics()).includes(topic), true, 'the topic is listed')
  equal(await partitionsOf(topic), 3, 'partitions')
  const cluster = await admin.metadata({ topics: [] })
  equal(cluster.brokers.size >= 1 && cluster.id.length > 0, true, 'the cluster')

  const resource = { resourceType: TOPIC, resourceName: topic }
  const config = async () => {
    const [described] = await admin.describeConfigs({ resources: [{ ...resource, configurationKeys: null }] })
    return Object.fromEntries(described.configs.map(c => [c.name, c.value]))
  }
  await eventually(async () => (await config())['retention.ms'], '7200000', 'retention.ms')
  equal((await config())['cleanup.policy'], 'delete', 'cleanup.policy')
  await admin.incrementalAlterConfigs({
    resources: [{
      ...resource,
      configs: [
        { name: 'retention.ms', configOperation: 0, value: '3600000' },
        { name: 'cleanup.policy', configOperation: 2, value: 'compact' }
      ]
    }]
  })
  await eventually(async () => (await config())['retention.ms'], '3600000', 'retention.ms after the change')
  equal((await config())['cleanup.policy'], 'delete,compact', 'cleanup.policy after the change')
  await admin.createPartitions({ topics: [{ name: topic, count: 5, assignments: null }] })
  await until(async () => (await partitionsOf(topic)) === 5, () => 'five partitions')
  await admin.deleteTopics({ topics: [topic] })
  await until(async () => !(await admin.listTopics()).includes(topic), () => 'the topic to go')
}

const compression = codec => async () => {
  if (!compressionsAlgorithms[codec].available) fail(`this Node has no ${codec}: the pinned one was not used`)
  const topic = await create()
  const items = records()
  const { offsets } = await produce(topic, items, { compression: codec })
  equal(offsets.map(o => [o.partition, o.offset]), [[0, 0n]], 'the base offset')
  const seen = await consume(topic, items.length)
  equal(seen.map(m => text(plain(m))), items.map(text), 'records')
  equal(seen.map(m => m.offset), items.map((_, i) => BigInt(i)), 'offsets')
}

async function acks () {
  for (const acks of [0, 1, -1]) {
    const topic = await create()
    const items = records(40, 1_000)
    await produce(topic, items, { acks })
    equal((await consume(topic, items.length)).map(m => text(plain(m))), items.map(text), `records with acks=${acks}`)
  }
}

async function idempotent () {
  const topic = await create(3)
  const items = records(300, 1_000)
  const producer = new Producer({ ...base, idempotent: true, autocreateTopics: false })
  for (let i = 0; i < items.length; i += 50) {
    await producer.send({ messages: items.slice(i, i + 50).map((r, j) => message(topic, j % 3)(r)), acks: -1 })
  }
  await producer.close()
  const seen = await consume(topic, items.length)
  equal(seen.map(m => text(plain(m))).sort(), items.map(text).sort(), 'records')
}

async function tooLarge () {
  const topic = await create(1, { 'max.message.bytes': '20000' })
  await refused(produce(topic, [{ value: bytes(50_000, 1) }]), is('MESSAGE_TOO_LARGE'), 'a record that is too large')
  await produce(topic, [{ value: Buffer.from('small') }])
}

/** A member of a group that reads until it leaves. */
class Member {
  constructor (groupId, topic) {
    this.seen = []
    this.topic = topic
    this.consumer = consumer(groupId, { autocommit: 100 })
  }

  get assigned () {
    return new Set((this.consumer.assignments ?? []).filter(a => a.topic === this.topic).flatMap(a => a.partitions))
  }

  async start () {
    this.stream = await this.consumer.consume({ topics: [this.topic], mode: 'committed', fallbackMode: 'earliest' })
    this.stream.on('data', m => this.seen.push(`${m.partition}:${m.offset}`))
    this.stream.on('error', error => { this.error = error })
    return this
  }

  async stop () {
    await this.stream.close()
    await this.consumer.close()
  }
}

const positions = (partitions, count) => {
  const all = []
  for (let p = 0; p < partitions; p++) for (let o = 0; o < count; o++) all.push(`${p}:${o}`)
  return all.sort()
}
const both = (...members) => [...new Set(members.flatMap(m => m.seen))].sort()
const state = (...members) => members.map(m => `${[...m.assigned]} (${m.seen.length} read, ${m.error})`).join('; ')
const numbers = count => Array.from({ length: count }, (_, i) => ({ value: Buffer.from(String(i)) }))

async function rebalance () {
  const parts = 4
  const topic = await create(parts)
  const groupId = name('group')
  for (let partition = 0; partition < parts; partition++) await produce(topic, numbers(50), { partition })
  const first = await new Member(groupId, topic).start()
  await until(() => first.assigned.size === parts && first.seen.length === 200,
    () => `one member to read all: ${state(first)}`)
  const second = await new Member(groupId, topic).start()
  await until(() => first.assigned.size === 2 && second.assigned.size === 2,
    () => `two partitions each: ${state(first, second)}`)
  equal([...first.assigned].some(p => second.assigned.has(p)), false, 'a partition with two owners')
  for (let partition = 0; partition < parts; partition++) await produce(topic, numbers(50), { partition })
  await until(() => both(first, second).length === 400, () => `all to be read: ${state(first, second)}`)
  equal(both(first, second), positions(parts, 100), 'positions read')
  await first.stop()
  await until(() => second.assigned.size === parts, () => `the partitions of the one that left: ${state(second)}`)
  for (let partition = 0; partition < parts; partition++) await produce(topic, numbers(1), { partition })
  await until(() => both(first, second).length === 404, () => `the last records: ${state(first, second)}`)
  equal(both(first, second), positions(parts, 101), 'positions read')
  await second.stop()
}

async function commitAndResume () {
  const topic = await create()
  const groupId = name('group')
  await produce(topic, numbers(100))
  const first = consumer(groupId)
  const stream = await first.consume({ topics: [topic], mode: 'earliest' })
  let read = 0
  stream.on('data', () => { read += 1 })
  await until(() => read >= 40, () => `40 records, there were ${read}`)
  await first.commit({ offsets: [{ topic, partition: 0, offset: 40n, leaderEpoch: 0 }] })
  await first.close(true)
  const second = consumer(groupId)
  const seen = []
  const resumed = await second.consume({ topics: [topic], mode: 'committed', fallbackMode: 'fail' })
  resumed.on('data', m => seen.push(Number(m.offset)))
  await until(() => seen.length >= 60, () => `60 records, there were ${seen.length}`)
  equal(seen, Array.from({ length: 60 }, (_, i) => 40 + i), 'offsets after resuming')
  const committed = await second.listCommittedOffsets({ topics: [{ topic, partitions: [0] }] })
  equal(committed.get(topic), [40n], 'what was committed')
  await second.close(true)
  const [never] = await admin.listConsumerGroupOffsets({
    groups: [{ groupId: name('never'), topics: [{ name: topic, partitionIndexes: [0] }] }]
  })
  equal(never.topics[0].partitions[0].committedOffset, -1n, 'no offset was committed')
}

async function timeLookup () {
  const topic = await create()
  await produce(topic, Array.from({ length: 20 }, (_, i) => ({
    value: Buffer.from('x'), timestamp: BigInt(1_600_000_000_000 + i * 1000)
  })))
  const at = async timestamp => {
    const [found] = await admin.listOffsets({ topics: [{ name: topic, partitions: [{ partitionIndex: 0, timestamp }] }] })
    return found.partitions[0].offset
  }
  equal(await at(1_600_000_000_000n), 0n, 'the first record’s time')
  equal(await at(1_600_000_004_500n), 5n, 'between two records')
  equal(await at(1_600_000_019_000n), 19n, 'the last record’s time')
  equal(await at(1_700_000_000_000n), -1n, 'past the end')
  equal([await at(-2n), await at(-1n), await at(-3n)], [0n, 20n, 19n], 'earliest, latest and by the largest time')
}

async function groupAdmin () {
  const topic = await create(2)
  const groupId = name('group')
  for (const partition of [0, 1]) await produce(topic, numbers(10), { partition })
  const member = await new Member(groupId, topic).start()
  await until(() => member.seen.length === 20, () => `the member to read: ${state(member)}`)
  const described = (await admin.describeGroups({ groups: [groupId] })).get(groupId)
  equal([described.state, described.members.size], ['STABLE', 1], 'the group')
  equal([...described.members.values()][0].assignments.get(topic).partitions.sort(), [0, 1], 'the assignment')
  await refused(admin.deleteGroups({ groups: [groupId] }), is('NON_EMPTY_GROUP'), 'deleting a group with a member')
  const offsets = async () => {
    const [group] = await admin.listConsumerGroupOffsets({ groups: [groupId] })
    return group.topics.flatMap(t => t.partitions.map(p => [p.partitionIndex, p.committedOffset])).sort()
  }
  await until(async () => (await offsets()).every(o => o[1] === 10n) && (await offsets()).length === 2,
    () => 'its offsets to be committed')
  await member.stop()
  equal((await admin.listGroups()).has(groupId), true, 'the group is listed')
  await admin.alterConsumerGroupOffsets({
    groupId, topics: [{ name: topic, partitionOffsets: [{ partition: 1, offset: 3n }] }]
  })
  equal(await offsets(), [[0, 10n], [1, 3n]], 'its offsets after one was altered')
  await admin.deleteConsumerGroupOffsets({ groupId, topics: [{ name: topic, partitionIndexes: [1] }] })
  equal(await offsets(), [[0, 10n]], 'its offsets after one was deleted')
  await admin.deleteGroups({ groups: [groupId] })
  equal((await admin.listGroups()).has(groupId), false, 'the deleted group is listed')
}

async function deleteRecords () {
  const topic = await create()
  await produce(topic, numbers(30))
  const [answer] = await admin.deleteRecords({ topics: [{ name: topic, partitions: [{ partition: 0, offset: 12n }] }] })
  equal(answer.partitions[0].lowWatermark, 12n, 'the low watermark')
  equal((await consume(topic, 18))[0].offset, 12n, 'the first offset left')
}

function transactional (id) {
  // Without them the client calls itself producer 0 of epoch 0, which is refused with PRODUCER_FENCED where the id has another one.
  return new Producer({ ...base, idempotent: true, transactionalId: id, producerId: -1n, producerEpoch: -1 })
}

const values = seen => seen.map(m => m.value.toString())
const COMMITTED = { isolationLevel: 1 }

async function transactions () {
  const topic = await create()
  const producer = transactional(name('t'))
  const expected = []
  for (let i = 0; i < 9; i++) {
    const transaction = await producer.beginTransaction()
    const messages = [0, 1, 2].map(j => ({ topic, partition: 0, value: Buffer.from(`${i}-${j}`) }))
    await transaction.send({ messages })
    // One alone: of several aborted transactions of a producer in one answer the client leaves out the last only.
    if (i === 3) {
      await transaction.abort()
    } else {
      await transaction.commit()
      expected.push(...[0, 1, 2].map(j => `${i}-${j}`))
    }
  }
  await producer.close()
  equal(values(await consume(topic, expected.length, COMMITTED)), expected, 'what was committed')
  equal((await consume(topic, 27, { isolationLevel: 0 })).length, 27, 'all records, dirty')
}

async function transactionFencing () {
  const topic = await create()
  const id = name('t')
  const [old, young] = [transactional(id), transactional(id)]
  const send = (transaction, value) => transaction.send({ messages: [{ topic, partition: 0, value: Buffer.from(value) }] })
  const open = await old.beginTransaction()
  await send(open, 'old')
  const next = await young.beginTransaction()
  await send(next, 'young')
  await next.commit()
  await refused(open.commit(), error => is('PRODUCER_FENCED')(error) || is('INVALID_PRODUCER_EPOCH')(error), 'a zombie commits')
  await Promise.all([old.close(), young.close()])
  equal(values(await consume(topic, 1, COMMITTED)), ['young'], 'what was committed')
}

async function exactlyOnce () {
  const [source, sink, groupId] = [await create(), await create(), name('g')]
  const sent = Array.from({ length: 30 }, (_, i) => `${i}`)
  await produce(source, sent.map(value => ({ value: Buffer.from(value) })))
  const producer = transactional(name('t'))
  const reader = consumer(groupId)
  const stream = await reader.consume({ topics: [source], mode: 'earliest', ...COMMITTED })
  let done = 0
  for await (const message of stream) {
    const transaction = await producer.beginTransaction()
    await transaction.addConsumer(reader)
    await transaction.send({ messages: [{ topic: sink, partition: 0, value: message.value }] })
    await transaction.addOffset(message)
    await transaction.commit()
    if (++done === sent.length) break
  }
  // The client does not ask for offsets without a transaction that is about to end.
  const offsets = () => reader.listCommittedOffsets({ topics: [{ topic: source, partitions: [0] }] })
  await eventually(async () => (await offsets()).get(source), [30n], 'the offset of the group')
  await reader.close(true)
  await producer.close()
  equal(values(await consume(sink, sent.length, COMMITTED)), sent, 'what came out')
}

async function newGroups () {
  const [topic, groupId] = [await create(4), name('g')]
  const join = async () => {
    const member = consumer(groupId, { groupProtocol: 'consumer' })
    await member.consume({ topics: [topic], mode: 'earliest' })
    return member
  }
  const owned = member => (member.assignments ?? []).flatMap(a => a.partitions).length
  const one = await join()
  await until(() => owned(one) === 4, () => `all four for one: ${owned(one)}`)
  const two = await join()
  await until(() => owned(one) === 2 && owned(two) === 2, () => `half each: ${owned(one)} and ${owned(two)}`)
  await one.close(true)
  await until(() => owned(two) === 4, () => `all four for the other: ${owned(two)}`)
  await two.close(true)
}

run({
  admin: adminCase,
  compression_none: compression('none'),
  compression_gzip: compression('gzip'),
  compression_snappy: compression('snappy'),
  compression_lz4: compression('lz4'),
  compression_zstd: compression('zstd'),
  acks,
  idempotent,
  too_large: tooLarge,
  group_rebalance: rebalance,
  commit_and_resume: commitAndResume,
  time_lookup: timeLookup,
  group_admin: groupAdmin,
  delete_records: deleteRecords,
  ...having('transactions', { transactions, transaction_fencing: transactionFencing, exactly_once: exactlyOnce }),
  ...having('groups', { new_groups: newGroups })
})
