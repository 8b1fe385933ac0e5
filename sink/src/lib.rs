//! Upserts the newest stock delta of every good into PostgreSQL, idempotently
