//! Real servers and processes for the tests: PostgreSQL, Apache Kafka, towpath itself, client environments, a fault proxy.
