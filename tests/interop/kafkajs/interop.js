'use strict'
// kafkajs against a broker: node interop.js HOST:PORT

const { AssignerProtocol, CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = require('kafkajs')
const { bootstrap, bytes, equal, eventually, having, name, records, refused, run, text, until, within } = require('../node/common.js')

// This client has neither of these built in; their plugs are as its documentation shows.
CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
const zstd = require('@mongodb-js/zstd')
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => zstd.compress(encoder.buffer),
  decompress: async buffer => zstd.decompress(buffer)
})
const lz4 = require('lz4-napi')
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async encoder => lz4.compressFrame(encoder.buffer),
  decompress: async buffer => lz4.decompressFrame(buffer)
})

const server = bootstrap()
const kafka = new Kafka({
  clientId: 'kafkajs', brokers: [server], logLevel: logLevel.NOTHING, retry: { initialRetryTime: 50, retries: 10 }
})
const admin = kafka.admin()
// This client asks again for a minute before it believes that a topic is not there.
const impatient = kafka.admin({ retry: { retries: 1, initialRetryTime: 10 } })
const is = type => error => error.type === type || error.errors?.some(e => e.type === type) || error.cause?.type === type

async function create (partitions = 1, configs = {}) {
  const topic = name('kafkajs')
  const configEntries = Object.entries(configs).map(([name, value]) => ({ name, value }))
  await admin.createTopics({
    waitForLeaders: true, topics: [{ topic, numPartitions: partitions, replicationFactor: 1, configEntries }]
  })
  return topic
}

const headers = list => Object.fromEntries(list)

async function produce (topic, items, { partition, acks = -1, compression, producer: options = {} } = {}) {
  const producer = kafka.producer({ allowAutoTopicCreation: false, ...options })
  await producer.connect()
  try {
    const messages = items.map(r => ({ ...r, headers: headers(r.headers ?? []), partition }))
    return await producer.send({ topic, messages, acks, compression })
  } finally {
    await producer.disconnect()
  }
}

/** Reads from the beginning, by a group of its own. */
async function consume (topic, count, options = {}) {
  const consumer = kafka.consumer({ groupId: name('reader'), maxWaitTimeInMs: 100, ...options })
  const seen = []
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ partition, message }) => { seen.push({ partition, ...message }) }
  })
  await until(() => seen.length >= count, () => `${count} records, there were ${seen.length}`)
  await consumer.disconnect()
  return seen
}

const plain = m => ({
  key: m.key, value: m.value, headers: Object.entries(m.headers ?? {}).flatMap(([k, v]) => [v].flat().map(x => [k, x]))
})

async function adminCase () {
  const topic = await create(3, { 'retention.ms': '7200000' })
  const again = { topics: [{ topic, numPartitions: 3, replicationFactor: 1 }] }
  equal(await admin.createTopics(again), false, 'creating it again')
  await refused(admin.createTopics({ topics: [{ topic: 'no/such name' }] }), is('INVALID_TOPIC_EXCEPTION'), 'a bad name')
  await eventually(async () => (await admin.listTopics()).includes(topic), true, 'the topic is listed')
  const { topics: [described] } = await admin.fetchTopicMetadata({ topics: [topic] })
  equal(described.partitions.length, 3, 'partitions')
  const cluster = await admin.describeCluster()
  equal(cluster.brokers.length >= 1 && cluster.controller !== null && cluster.clusterId !== '', true, 'the cluster')

  const config = async () => {
    const { resources } = await admin.describeConfigs({
      includeSynonyms: true, resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }]
    })
    return Object.fromEntries(resources[0].configEntries.map(e => [e.configName, e.configValue]))
  }
  await eventually(async () => (await config())['retention.ms'], '7200000', 'retention.ms')
  equal((await config())['cleanup.policy'], 'delete', 'cleanup.policy')
  // The old call replaces all: what is not named goes back to its default.
  await admin.alterConfigs({
    resources: [{
      type: ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name: 'max.message.bytes', value: '123456' }]
    }]
  })
  await eventually(async () => (await config())['max.message.bytes'], '123456', 'max.message.bytes after the change')
  equal((await config())['retention.ms'], '604800000', 'retention.ms, which was not named')

  await admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] })
  await until(async () => (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length === 5,
    () => 'five partitions')
  await admin.deleteTopics({ topics: [topic] })
  await until(async () => !(await admin.listTopics()).includes(topic), () => 'the topic to go')
  await refused(impatient.deleteTopics({ topics: [topic] }), is('UNKNOWN_TOPIC_OR_PARTITION'), 'deleting it again')
}

const compression = codec => async () => {
  const topic = await create()
  const items = records()
  const [{ baseOffset }] = await produce(topic, items, { compression: codec })
  equal(baseOffset, '0', 'the base offset')
  const seen = await consume(topic, items.length)
  equal(seen.map(m => text(plain(m))), items.map(text), 'records')
  equal(seen.map(m => m.offset), items.map((_, i) => String(i)), 'offsets')
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
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 })
  await producer.connect()
  for (let i = 0; i < items.length; i += 50) {
    const messages = items.slice(i, i + 50).map(r => ({ ...r, headers: headers(r.headers) }))
    await producer.send({ topic, messages })
  }
  await producer.disconnect()
  const seen = await consume(topic, items.length)
  equal(seen.map(m => text(plain(m))).sort(), items.map(text).sort(), 'records')
}

async function tooLarge () {
  const topic = await create(1, { 'max.message.bytes': '20000' })
  await refused(produce(topic, [{ value: bytes(50_000, 1) }]), is('MESSAGE_TOO_LARGE'), 'a record that is too large')
  await produce(topic, [{ value: 'small' }])
}

/** A member of a group that reads until it leaves. */
class Member {
  constructor (groupId, topic) {
    this.seen = []
    this.assigned = new Set()
    this.topic = topic
    this.consumer = kafka.consumer({
      groupId, sessionTimeout: 10_000, heartbeatInterval: 300, rebalanceTimeout: 10_000, maxWaitTimeInMs: 100
    })
  }

  async start () {
    const { GROUP_JOIN, REBALANCING } = this.consumer.events
    this.consumer.on(GROUP_JOIN, ({ payload }) => {
      this.assigned = new Set(payload.memberAssignment[this.topic] ?? [])
    })
    this.consumer.on(REBALANCING, () => { this.assigned = new Set() })
    await this.consumer.connect()
    await this.consumer.subscribe({ topics: [this.topic], fromBeginning: true })
    await this.consumer.run({
      autoCommitInterval: 100,
      eachMessage: async ({ partition, message }) => { this.seen.push(`${partition}:${message.offset}`) }
    })
    return this
  }

  stop () {
    return this.consumer.disconnect()
  }
}

const positions = (partitions, count) => {
  const all = []
  for (let p = 0; p < partitions; p++) for (let o = 0; o < count; o++) all.push(`${p}:${o}`)
  return all.sort()
}
const both = (...members) => [...new Set(members.flatMap(m => m.seen))].sort()
const state = (...members) => members.map(m => `${[...m.assigned]} (${m.seen.length} read)`).join('; ')
const numbers = (count, from = 0) => Array.from({ length: count }, (_, i) => ({ value: String(from + i) }))

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
  const first = kafka.consumer({ groupId, maxWaitTimeInMs: 100 })
  await first.connect()
  await first.subscribe({ topics: [topic], fromBeginning: true })
  let read = 0
  await first.run({ autoCommit: false, eachMessage: async () => { read += 1 } })
  await until(() => read >= 40, () => `40 records, there were ${read}`)
  await first.commitOffsets([{ topic, partition: 0, offset: '40', metadata: 'half-way' }])
  await first.disconnect()
  const second = kafka.consumer({ groupId, maxWaitTimeInMs: 100 })
  const seen = []
  await second.connect()
  await second.subscribe({ topics: [topic], fromBeginning: true })
  await second.run({ autoCommit: false, eachMessage: async ({ message }) => { seen.push(Number(message.offset)) } })
  await until(() => seen.length >= 60, () => `60 records, there were ${seen.length}`)
  await second.disconnect()
  equal(seen, Array.from({ length: 60 }, (_, i) => 40 + i), 'offsets after resuming')
  const [committed] = await admin.fetchOffsets({ groupId, topics: [topic] })
  equal(committed.partitions.map(p => [p.partition, p.offset, p.metadata]), [[0, '40', 'half-way']], 'what was committed')
  const [never] = await admin.fetchOffsets({ groupId: name('never'), topics: [topic] })
  equal(never.partitions[0].offset, '-1', 'no offset was committed')
}

async function timeLookup () {
  const topic = await create()
  const items = Array.from({ length: 20 }, (_, i) => ({ value: 'x', timestamp: String(1_600_000_000_000 + i * 1000) }))
  await produce(topic, items)
  const at = async time => (await admin.fetchTopicOffsetsByTimestamp(topic, time))[0].offset
  equal(await at(1_600_000_000_000), '0', 'the first record’s time')
  equal(await at(1_600_000_004_500), '5', 'between two records')
  equal(await at(1_600_000_019_000), '19', 'the last record’s time')
  equal(await at(1_700_000_000_000), '20', 'past the end')
  const [ends] = await admin.fetchTopicOffsets(topic)
  equal([ends.low, ends.high], ['0', '20'], 'low and high')
}

async function groupAdmin () {
  const topic = await create(2)
  const groupId = name('group')
  for (const partition of [0, 1]) await produce(topic, numbers(10), { partition })
  const member = await new Member(groupId, topic).start()
  await until(() => member.seen.length === 20, () => `the member to read: ${state(member)}`)
  const { groups: [described] } = await admin.describeGroups([groupId])
  equal([described.state, described.protocolType, described.members.length], ['Stable', 'consumer', 1], 'the group')
  const assignment = AssignerProtocol.MemberAssignment.decode(described.members[0].memberAssignment)
  equal(assignment.assignment[topic].sort(), [0, 1], 'the assignment')
  await refused(admin.deleteGroups([groupId]), e => is('NON_EMPTY_GROUP')(e) || JSON.stringify(e).includes('68'),
    'deleting a group with a member')
  await member.stop()
  equal((await admin.listGroups()).groups.some(g => g.groupId === groupId), true, 'the group is listed')
  const offsets = async () => {
    const [found] = await admin.fetchOffsets({ groupId, topics: [topic] })
    return found.partitions.map(p => [p.partition, p.offset]).sort()
  }
  equal(await offsets(), [[0, '10'], [1, '10']], 'its offsets')
  await admin.setOffsets({ groupId, topic, partitions: [{ partition: 1, offset: '3' }] })
  equal(await offsets(), [[0, '10'], [1, '3']], 'its offsets after one was set')
  await admin.deleteGroups([groupId])
  equal((await admin.listGroups()).groups.some(g => g.groupId === groupId), false, 'the deleted group is listed')
}

async function deleteRecords () {
  const topic = await create()
  await produce(topic, numbers(30))
  // This client deletes only from topics whose leaders it has asked for before.
  equal((await admin.fetchTopicOffsets(topic))[0].high, '30', 'the high watermark')
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '12' }] })
  equal((await admin.fetchTopicOffsets(topic))[0].low, '12', 'the low watermark')
  equal((await consume(topic, 18)).map(m => m.offset)[0], '12', 'the first offset left')
}

async function transactional (id) {
  const producer = kafka.producer({ transactionalId: id, idempotent: true, maxInFlightRequests: 1 })
  await producer.connect()
  return producer
}

const values = seen => seen.map(m => m.value.toString())

async function transactions () {
  const topic = await create()
  const producer = await transactional(name('t'))
  const expected = []
  for (let i = 0; i < 9; i++) {
    const transaction = await producer.transaction()
    await transaction.send({ topic, messages: [0, 1, 2].map(j => ({ value: `${i}-${j}`, partition: 0 })) })
    if (i % 3 === 0) {
      await transaction.abort()
    } else {
      await transaction.commit()
      expected.push(...[0, 1, 2].map(j => `${i}-${j}`))
    }
  }
  await producer.disconnect()
  equal(values(await consume(topic, expected.length)), expected, 'what was committed')
  equal((await consume(topic, 27, { readUncommitted: true })).length, 27, 'all records, dirty')
}

async function transactionFencing () {
  const topic = await create()
  const id = name('t')
  const old = await transactional(id)
  const open = await old.transaction()
  await open.send({ topic, messages: [{ value: 'old', partition: 0 }] })
  const young = await transactional(id)
  const next = await young.transaction()
  await next.send({ topic, messages: [{ value: 'young', partition: 0 }] })
  await next.commit()
  // A broker tells it by either of two names.
  await refused(open.commit(), error => ['PRODUCER_FENCED', 'INVALID_PRODUCER_EPOCH'].some(type => is(type)(error)),
    'a zombie commits')
  await Promise.all([old.disconnect(), young.disconnect()])
  equal(values(await consume(topic, 1)), ['young'], 'what was committed')
}

async function exactlyOnce () {
  const [source, sink] = [await create(), await create()]
  const groupId = name('g')
  const sent = Array.from({ length: 60 }, (_, i) => `${i}`)
  await produce(source, sent.map(value => ({ value })), { partition: 0 })
  const producer = await transactional(name('t'))
  const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 100, maxBytes: 200 })
  let done = 0
  let turn = 0
  await consumer.connect()
  await consumer.subscribe({ topics: [source], fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachBatchAutoResolve: false,
    eachBatch: async ({ batch, resolveOffset }) => {
      const messages = batch.messages
      const transaction = await producer.transaction()
      await transaction.send({ topic: sink, messages: messages.map(m => ({ value: m.value, partition: 0 })) })
      const offset = (BigInt(batch.lastOffset()) + 1n).toString()
      await transaction.sendOffsets({ consumerGroupId: groupId, topics: [{ topic: source, partitions: [{ partition: 0, offset }] }] })
      if (turn++ % 3 === 0) {
        await transaction.abort()
        consumer.seek({ topic: source, partition: 0, offset: messages[0].offset })
      } else {
        await transaction.commit()
        resolveOffset(batch.lastOffset())
        done += messages.length
      }
    }
  })
  await until(() => done >= 60, () => `60 records, there were ${done}`)
  await consumer.disconnect()
  await producer.disconnect()
  equal(values(await consume(sink, 60)), sent, 'what came out')
  const [{ partitions }] = await admin.fetchOffsets({ groupId, topics: [source] })
  equal(partitions[0].offset, '60', 'the offset of the group')
}

async function main () {
  await within(Promise.all([admin.connect(), impatient.connect()]), () => 'the admin clients to connect')
  await run({
    admin: adminCase,
    compression_none: compression(CompressionTypes.None),
    compression_gzip: compression(CompressionTypes.GZIP),
    compression_snappy: compression(CompressionTypes.Snappy),
    compression_lz4: compression(CompressionTypes.LZ4),
    compression_zstd: compression(CompressionTypes.ZSTD),
    acks,
    idempotent,
    too_large: tooLarge,
    group_rebalance: rebalance,
    commit_and_resume: commitAndResume,
    time_lookup: timeLookup,
    group_admin: groupAdmin,
    delete_records: deleteRecords,
    ...having('transactions', { transactions, transaction_fencing: transactionFencing, exactly_once: exactlyOnce })
  })
}

main()
