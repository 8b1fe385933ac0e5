//! The processor's rdkafka adapter on real brokers: what the engine relies on and no mock can show.
//!
//! Atomicity, fencing and group membership are the brokers' doing, so every test here asks real ones.

mod clients;
mod consumer;
mod cooperation;
mod logs;
mod model;
mod producer;
mod provision;
