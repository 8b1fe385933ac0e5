//! End-to-end scenarios on real servers, and the two stacks they run on
