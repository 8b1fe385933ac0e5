//! An in-memory transactional log behind the engine's client trait, and seeded crash schedules over it
