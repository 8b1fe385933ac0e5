//! Which ids are certainly absent, in memory.
//!
//! Most ids a stream brings are new, and asking a large tree about an absent random key costs a walk to a
//! cold leaf. A Bloom filter answers nearly all of them from memory. It owns only bits: it never answers
//! "absent" for a key that was announced to it, and before it has seen every key it answers nothing.
//!
//! It is built a chunk at a time by its owner, beside normal work. Keys written meanwhile are announced to
//! both the old and the new filter, so it does not matter on which side of the build's cursor they fall.

use fastbloom::BloomFilter;
use uuid::Uuid;

/// Bits per key at capacity; 4 probes then give 0.65 % false "maybe" answers, 8 would give 0.31 % and
/// cost up to 4 more cache misses per answer.
const BITS_PER_KEY: usize = 12;
const PROBES: u32 = 4;
const SMALLEST_CAPACITY: usize = 1 << 16;

struct Bits {
    bloom: BloomFilter,
    capacity: usize,
    announced: usize,
}

impl Bits {
    fn with_capacity(capacity: usize) -> Self {
        // A random seed: nobody who chooses ids can choose them to collide.
        let bloom = BloomFilter::with_num_bits(capacity * BITS_PER_KEY).seed(&Uuid::new_v4().as_u128()).hashes(PROBES);
        Self { bloom, capacity, announced: 0 }
    }

    fn announce(&mut self, key: &[u8]) {
        if !self.bloom.insert(key) {
            self.announced += 1;
        }
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Filter {
    /// Only keys of this length go through the filter, all where there is none.
    length: Option<usize>,
    complete: Option<Bits>,
    building: Option<(Bits, Vec<u8>)>,
}

impl Filter {
    /// A filter that is complete at once, for a state without keys.
    pub(crate) fn of_nothing(length: Option<usize>) -> Self {
        Self { length, complete: Some(Bits::with_capacity(SMALLEST_CAPACITY)), building: None }
    }

    /// A filter to be built over a state of `keys` keys.
    pub(crate) fn to_build(length: Option<usize>, keys: usize) -> Self {
        let mut filter = Self { length, ..Self::default() };
        filter.start(keys);
        filter
    }

    fn start(&mut self, keys: usize) {
        let capacity = (keys + keys / 2).max(SMALLEST_CAPACITY);
        self.building = Some((Bits::with_capacity(capacity), Vec::new()));
    }

    fn takes(&self, key: &[u8]) -> bool {
        self.length.is_none_or(|length| key.len() == length)
    }

    /// Whether `key` may be present; `false` is certain.
    pub(crate) fn may_contain(&self, key: &[u8]) -> bool {
        match &self.complete {
            Some(bits) if self.takes(key) => bits.bloom.contains(key),
            _ => true,
        }
    }

    /// Must be called with every key before it is written.
    pub(crate) fn announce(&mut self, key: &[u8]) {
        if !self.takes(key) {
            return;
        }
        if let Some(bits) = &mut self.complete {
            bits.announce(key);
        }
        if let Some((bits, _)) = &mut self.building {
            bits.announce(key);
        }
    }

    /// Starts again, larger, when more keys were announced than the filter was made for. Deleted keys
    /// count too: their bits stay until then.
    pub(crate) fn grow_if_needed(&mut self, keys: usize) {
        let newest = self.building.as_ref().map(|(bits, _)| bits).or(self.complete.as_ref());
        if newest.is_none_or(|bits| bits.announced > bits.capacity) {
            self.start(keys);
        }
    }

    /// The key after which the build goes on (empty: at the first); `None` when nothing is being built.
    pub(crate) fn cursor(&self) -> Option<&[u8]> {
        self.building.as_ref().map(|(_, cursor)| cursor.as_slice())
    }

    /// Takes the next key of the state, in order.
    pub(crate) fn build(&mut self, key: &[u8]) {
        let takes = self.takes(key);
        let Some((bits, cursor)) = &mut self.building else { return };
        if takes {
            bits.announce(key);
        }
        cursor.clear();
        cursor.extend_from_slice(key);
    }

    /// Says that the build has seen the last key.
    pub(crate) fn finish(&mut self) {
        if let Some((bits, _)) = self.building.take() {
            self.complete = Some(bits);
        }
    }

    /// Whether absent keys are answered from memory.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete.is_some()
    }

    /// Bytes of memory in use.
    pub(crate) fn memory(&self) -> usize {
        let bits = |bits: &Bits| bits.bloom.num_bits() / 8;
        self.complete.as_ref().map_or(0, bits) + self.building.as_ref().map_or(0, |(building, _)| bits(building))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> [u8; 16] {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        key[8..].copy_from_slice(&number.to_be_bytes());
        key
    }

    #[test]
    fn absent_keys_are_mostly_known_and_present_ones_never_denied() {
        let text = |number: u64| format!("[{number},\"A-{}\"]", number % 7).into_bytes();
        let uuid = |number: u64| key(number).to_vec();
        for (length, key) in [(Some(16), &uuid as &dyn Fn(u64) -> Vec<u8>), (None, &uuid), (None, &text)] {
            let mut filter = Filter::of_nothing(length);
            for number in 0..60_000 {
                filter.announce(&key(number));
            }
            assert!((0..60_000).all(|number| filter.may_contain(&key(number))));
            let wrong = (60_000..160_000).filter(|&number| filter.may_contain(&key(number))).count();
            assert!(wrong < 2_000, "{wrong} of 100000");
        }
    }

    #[test]
    fn nothing_is_called_absent_before_the_build_is_finished() {
        let mut filter = Filter::to_build(Some(16), 10);
        assert!(filter.may_contain(&key(1)));
        filter.announce(&key(2));
        filter.build(&key(3));
        assert!(filter.may_contain(&key(4)));
        filter.finish();
        assert!(filter.may_contain(&key(2)) && filter.may_contain(&key(3)));
        assert!(filter.may_contain(b"short"));
    }
}
