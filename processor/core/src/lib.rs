//! The pure rule: change events in, decisions out; no clock, no I/O, no Kafka
