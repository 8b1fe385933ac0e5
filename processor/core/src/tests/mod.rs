//! Tests of the rule as a whole: what it says, sentence by sentence (`specification`), what it does on real and
//! crafted logs (`logs`), and what it keeps on arbitrary histories (`properties`).

mod events;
mod logs;
mod properties;
mod replay;
mod specification;
mod sweeping;
