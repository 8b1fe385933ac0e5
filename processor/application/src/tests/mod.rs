//! Tests of the program against a transaction in memory: no broker, no engine, no clock.

mod captures;
mod formats;
mod fractions;
mod goods;
mod inputs;
mod keys;
mod restoring;
mod steps;
mod sweeps;
mod world;
