//! The record partitioner: Kafka's murmur2, as the Java client's default for keyed records (`murmur2_random` in
//! librdkafka), so that any Kafka client finds a good's partition.
//!
//! Written out here because the core has to know the partition of a movement before anything is produced: it decides
//! whether the movement stays local.

use std::num::NonZeroU32;

use crate::GoodId;

/// Kafka's 32-bit murmur2 of a record key (seed 0x9747b28c).
pub fn murmur2(key: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // The Java client hashes with the length as int; keys are far below 2^31 bytes, and only the low 32 bits count.
    let length = u32::try_from(key.len() & 0xffff_ffff).unwrap_or(u32::MAX);
    let mut hash: u32 = 0x9747_b28c ^ length;
    let (words, rest) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    for (shift, byte) in [0_u32, 8, 16].into_iter().zip(rest) {
        hash ^= u32::from(*byte) << shift;
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    (hash ^ (hash >> 15)).cast_signed()
}

/// The partition of a record key among `partitions`.
pub fn partition_for(key: &[u8], partitions: NonZeroU32) -> i32 {
    ((murmur2(key).cast_unsigned() & 0x7fff_ffff) % partitions).cast_signed()
}

/// The partition of a good's movements and deltas: its key is the good as plain text.
pub fn partition_for_good(good_id: &GoodId, partitions: NonZeroU32) -> i32 {
    good_id.with_key(|key| partition_for(key, partitions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_gives_the_values_of_kafkas_own_tests() {
        // org.apache.kafka.common.utils.UtilsTest#testMurmur2
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn a_good_lies_where_its_key_lies() {
        let ten = NonZeroU32::new(10).unwrap();
        for good_id in [0, 1, 2, -1, i64::MIN, i64::MAX] {
            let good = GoodId::from(good_id);
            assert_eq!(partition_for_good(&good, ten), partition_for(good_id.to_string().as_bytes(), ten));
            assert!((0..10).contains(&partition_for_good(&good, ten)));
        }
        assert_eq!(partition_for_good(&GoodId::from_text("21").unwrap(), ten), partition_for(b"21", ten));
        assert_eq!(partition_for(b"21", ten), 1_173_551_340 % 10);
        assert_eq!(partition_for(b"anything", NonZeroU32::MIN), 0);
    }
}
