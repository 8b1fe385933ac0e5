//! Tests of the rule as a whole.
