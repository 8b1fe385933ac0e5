//! Turns Debezium change events into exact per-good stock deltas with Kafka transactions

pub mod kafka;
