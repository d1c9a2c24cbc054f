//! Every bound in one place (R10): nothing read from outside is allocated for before it is checked against these.

/// Bytes of the largest request frame a broker accepts (`socket.request.max.bytes`).
pub const REQUEST_BYTES_MAX: usize = 100 * 1024 * 1024;
/// Bytes of the largest response frame a client accepts.
pub const RESPONSE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes that all connections of a broker together may hold of requests not yet answered (`queued.max.request.bytes`).
pub const REQUEST_MEMORY_BYTES: usize = 256 * 1024 * 1024;
/// Bytes of memory that the arrays of one decoded request may take: of a request that consists of tiny elements the
/// decoded form is many times as large.
pub const REQUEST_ARRAYS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of answers that one connection may hold before its next request is begun.
pub const REPLY_BYTES_MAX: usize = 1024 * 1024;
/// Connections a broker accepts at the same time (`max.connections`).
pub const CONNECTIONS_MAX: usize = 20_000;
/// Requests of one connection that may be in work or wait for their answer to be written.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 64;
/// Bytes of the largest record batch by default (`message.max.bytes`, Kafka's default).
pub const MESSAGE_BYTES_MAX_DEFAULT: usize = 1_048_588;
/// Bytes of the largest record batch that any setting may allow.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes that one record batch may decompress to, whatever its codec (a few KiB of zstd can expand to GiB).
pub const BATCH_UNCOMPRESSED_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Records in one batch: Kafka's count is an `i32`, a record has at least seven bytes.
pub const BATCH_RECORDS_MAX: usize = BATCH_UNCOMPRESSED_BYTES_MAX / 7;
/// Headers of one record.
pub const RECORD_HEADERS_MAX: usize = 4096;
/// Bytes that one fetch response may carry (`fetch.max.bytes` of the broker).
pub const FETCH_BYTES_MAX: usize = 55 * 1024 * 1024;
/// Incremental fetch sessions a broker keeps (`max.incremental.fetch.session.cache.slots`).
pub const FETCH_SESSIONS_MAX: usize = 1_000;
/// Partitions of one topic.
pub const PARTITIONS_PER_TOPIC_MAX: i32 = 10_000;
/// Partitions of one broker.
pub const PARTITIONS_MAX: usize = 100_000;
/// Producers whose state one partition remembers.
pub const PRODUCERS_PER_PARTITION_MAX: usize = 100_000;
/// Bytes of the metadata that may accompany a committed offset (`offset.metadata.max.bytes`).
pub const OFFSET_METADATA_BYTES_MAX: usize = 4096;
/// Members of one consumer group (`group.max.size`).
pub const GROUP_MEMBERS_MAX: usize = 10_000;
/// Members of one share group by default (`group.share.max.size`).
pub const SHARE_GROUP_MEMBERS_MAX: usize = 200;
/// Share partitions (group and partition) that one broker keeps in memory.
pub const SHARE_PARTITIONS_MAX: usize = 20_000;
/// Share partitions whose state one partition of `__share_group_state` may hold.
pub const SHARE_STATES_MAX: usize = 100_000;
/// Batches of records in different states that one share partition's state may have.
pub const SHARE_STATE_BATCHES_MAX: usize = 20_000;
/// Bytes of subscription and assignment that the members of one group may hold together.
pub const GROUP_STATE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes that the groups of one coordinator partition may hold together, committed offsets included.
pub const GROUP_PARTITION_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of everything that the groups of all partitions of the offsets topic hold that one broker leads.
pub const GROUP_COORDINATOR_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Bytes of what one member of a consumer group says about itself.
pub const GROUP_MEMBER_BYTES_MAX: usize = 512 * 1024;
/// Bytes of a group's id, where the protocol has no bound of its own.
pub const GROUP_ID_BYTES_MAX: usize = 32_767;
/// Bytes of the id that a member of a consumer group chooses for itself.
pub const MEMBER_ID_BYTES_MAX: usize = 1_024;
/// Bytes of a regular expression that a member of a consumer group subscribes to.
pub const GROUP_REGEX_BYTES_MAX: usize = 4_096;
/// Regular expressions of one consumer group.
pub const GROUP_REGEXES_MAX: usize = 100;
/// Groups of one coordinator partition.
pub const GROUPS_MAX: usize = 100_000;
/// Transactional ids of one coordinator partition.
pub const TRANSACTIONAL_IDS_MAX: usize = 100_000;
/// Partitions of one transaction.
pub const TRANSACTION_PARTITIONS_MAX: usize = 100_000;
/// Bytes of one transaction's partitions as they stand in a record, which must fit a batch of the state topic.
pub const TRANSACTION_BYTES_MAX: usize = 512 * 1024;
/// Bytes that the transactional ids of one coordinator partition may hold together.
pub const TRANSACTION_PARTITION_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of records that a producer holds before `send` waits (`buffer.memory`).
pub const PRODUCER_BUFFER_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of fetched records that a consumer holds before it stops fetching.
pub const CONSUMER_BUFFER_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of one YAML file.
pub const CONFIG_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Bytes of one line that a node under `towpath up --nodes` says, before it is passed on in pieces.
pub const OUTPUT_LINE_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of one secret read from a file or the environment.
pub const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// Fields of one row schema (PostgreSQL allows 1,600 columns).
pub const SCHEMA_FIELDS_MAX: usize = 4096;
/// Bytes of one batch between source, transforms and sink, above which a source returns what it has.
pub const BATCH_BYTES_TARGET: usize = 1024 * 1024;
/// Bytes of one field's value (PostgreSQL's own bound is 1 GiB; a record must fit a record batch).
pub const FIELD_BYTES_MAX: usize = MESSAGE_BYTES_MAX;
/// Bytes of a batch on its way into a plugin or out of it.
pub const PLUGIN_BATCH_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;
/// Bytes of the file of a plugin (Python's interpreter alone takes 18 MB).
pub const PLUGIN_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Files in one folder of a plugin directory.
pub const PLUGIN_DIRECTORY_ENTRIES_MAX: usize = 10_000;
/// Bytes of the lock file of plugins.
pub const PLUGIN_LOCK_BYTES_MAX: u64 = 1024 * 1024;
/// Schemas that one instance of a plugin knows by number, before it is replaced by a new one.
pub const PLUGIN_SCHEMAS_MAX: usize = 4096;
/// Bytes of one schema that a plugin defines.
pub const PLUGIN_SCHEMA_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of all schemas that one instance of a plugin defines.
pub const PLUGIN_SCHEMAS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of the body of an HTTP request of a plugin, and of the answer.
pub const PLUGIN_HTTP_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Headers of an HTTP request of a plugin, and of the answer.
pub const PLUGIN_HTTP_HEADERS_MAX: usize = 128;
/// Bytes of those headers together.
pub const PLUGIN_HTTP_HEADER_BYTES_MAX: usize = 64 * 1024;
/// TCP connections of one instance of a plugin.
pub const PLUGIN_CONNECTIONS_MAX: usize = 16;
/// Bytes that a plugin reads from a connection at once.
pub const PLUGIN_READ_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a key of a plugin's state.
pub const PLUGIN_STATE_KEY_BYTES_MAX: usize = 256;
/// Bytes of a value of a plugin's state.
pub const PLUGIN_STATE_VALUE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of all keys and values of a plugin's state.
pub const PLUGIN_STATE_BYTES_MAX: usize = 1024 * 1024;
/// Source partitions whose offsets a plugin tells in one poll.
pub const PLUGIN_OFFSETS_MAX: usize = 10_000;
/// Bytes of one of those offsets, and of the name of its source partition.
pub const PLUGIN_OFFSET_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a record's place in its lane that a plugin tells.
pub const PLUGIN_POSITION_BYTES_MAX: usize = 1024;
/// Bytes of random that a plugin may ask for at once.
pub const PLUGIN_RANDOM_BYTES_MAX: u32 = 64 * 1024;
/// Bytes of one line that a plugin writes into the log.
pub const PLUGIN_LOG_BYTES_MAX: usize = 4 * 1024;
/// Lines that a plugin writes into the log in one call.
pub const PLUGIN_LOG_LINES_MAX: u32 = 100;
/// Bytes of each text that a plugin says in an error.
pub const PLUGIN_TEXT_BYTES_MAX: usize = 4 * 1024;
/// Bytes of one line of an input file.
pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;
