//! The transaction engine: poll, process, commit, abort, rebalance, restore; knows no goods
