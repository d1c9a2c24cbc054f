// What a sink is given, and what it says of it.
import { Rejection } from './error.js';
import { narrow } from './row.js';

/** A partition of a topic. As text it is `topic-0`, which is a key for maps. */
export class TopicPartition {
  constructor(topic, partition) {
    this.topic = topic;
    this.partition = partition;
  }

  toString() {
    return `${this.topic}-${this.partition}`;
  }
}

/** Records of one partition, in the order of their offsets. */
export class Delivery {
  constructor({ partition, topicId, firstOffset, nextOffset }, batch) {
    this.partition = new TopicPartition(partition.topic, partition.partition);
    /** The topic's identity: one that was deleted and created again is another one. */
    this.topicId = topicId;
    /** The first offset that it covers, including records that were dropped on the way. */
    this.firstOffset = narrow(firstOffset);
    /** The offset after the last that it covers: the position moves here even when there is no record. */
    this.nextOffset = narrow(nextOffset);
    this.batch = batch;
  }
}

/** What became of a delivery. */
export class Written {
  constructor(durability, rejected) {
    this.durability = durability;
    this.rejections = rejected;
  }

  /** It is safe, with everything accepted before. */
  static durable() {
    return new Written('durable', []);
  }

  /** It is taken; the next flush makes it safe. */
  static accepted() {
    return new Written('accepted', []);
  }

  /**
   * These records cannot be taken, now or ever: `[record, Rejection]` each, where a record can be its index. Nothing of the
   * delivery may count: it comes again without them.
   */
  static rejected(records) {
    return new Written('accepted', [...records].map(([record, why]) => {
      if (!(why instanceof Rejection)) throw new TypeError('a record is rejected with a Rejection');
      return { index: typeof record === 'number' ? record : record.index, details: why.details() };
    }));
  }
}
