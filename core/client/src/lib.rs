//! Kafka producer, consumer, admin and raw batches, over TCP or in process.
