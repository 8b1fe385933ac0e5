//! Changes of one partition that are not in its store yet: the newest per key.
//!
//! Owns the overlay of an open transaction and the backlog of a replay. All keys and values lie in one buffer, because
//! a map of vectors spent a tenth of a worker's time in the allocator (two blocks per record). A value that is
//! replaced leaves its bytes behind until the whole is dropped, which both uses do soon.

use std::hash::BuildHasher as _;
use std::ops::Range;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::store::Write;

/// The newest change per key. See the module.
#[derive(Debug, Default)]
pub struct Changes {
    bytes: Vec<u8>,
    slots: HashTable<Slot>,
    hasher: DefaultHashBuilder,
}

/// Where a key and its value lie.
#[derive(Debug, Clone)]
struct Slot {
    key: Range<usize>,
    /// `None`: the key is deleted.
    value: Option<Range<usize>>,
}

/// The bytes of a range that was handed out by [`push`], and so lies within the buffer.
fn slice<'a>(bytes: &'a [u8], range: &Range<usize>) -> &'a [u8] {
    bytes.get(range.clone()).unwrap_or_default()
}

fn push(bytes: &mut Vec<u8>, part: &[u8]) -> Range<usize> {
    let start = bytes.len();
    bytes.extend_from_slice(part);
    start..bytes.len()
}

impl Changes {
    /// Notes the new value of a key, `None` for its removal.
    pub fn insert(&mut self, key: &[u8], value: Option<&[u8]>) {
        let Self { bytes, slots, hasher } = self;
        let value = value.map(|value| push(bytes, value));
        let hash = hasher.hash_one(key);
        if let Some(slot) = slots.find_mut(hash, |slot| slice(bytes, &slot.key) == key) {
            slot.value = value;
            return;
        }
        let slot = Slot { key: push(bytes, key), value };
        slots.insert_unique(hash, slot, |slot| hasher.hash_one(slice(bytes, &slot.key)));
    }

    /// The change of a key: `None` when there is none, `Some(None)` when it is deleted.
    pub fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        let slot = self.slots.find(self.hasher.hash_one(key), |slot| slice(&self.bytes, &slot.key) == key)?;
        Some(slot.value.as_ref().map(|value| slice(&self.bytes, value)))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Everything, sorted by key, as a store takes it.
    pub fn sorted(&self) -> Vec<Write<'_>> {
        let write = |slot: &Slot| Write {
            key: slice(&self.bytes, &slot.key),
            value: slot.value.clone().map(|value| slice(&self.bytes, &value)),
        };
        let mut writes: Vec<Write<'_>> = self.slots.iter().map(write).collect();
        writes.sort_unstable_by_key(|write| write.key);
        writes
    }

    /// Forgets everything but keeps the memory for the next batch.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.slots.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn changes_are_those_of_a_map(
            inserts in prop::collection::vec(
                (prop::collection::vec(0..4_u8, 0..3), prop::option::of(prop::collection::vec(0..9_u8, 0..5))),
                0..200,
            ),
        ) {
            let (mut changes, mut map) = (Changes::default(), BTreeMap::new());
            for (key, value) in &inserts {
                changes.insert(key, value.as_deref());
                map.insert(key.as_slice(), value.as_deref());
                prop_assert_eq!(changes.get(key), Some(value.as_deref()));
            }
            prop_assert_eq!(changes.get(b"never"), None);
            prop_assert_eq!(changes.len(), map.len());
            let sorted: Vec<(&[u8], Option<&[u8]>)> =
                changes.sorted().into_iter().map(|write| (write.key, write.value)).collect();
            prop_assert_eq!(sorted, map.into_iter().collect::<Vec<_>>());
            changes.clear();
            prop_assert!(changes.is_empty() && changes.sorted().is_empty());
        }
    }
}
