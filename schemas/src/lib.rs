//! The wire contract: every record the two programs read or write
