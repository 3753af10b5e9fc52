//! Which partition a record goes to.

/// The partition of a key among `count`, as Kafka's own clients choose it, so that records of ours and of theirs with the
/// same key meet.
pub(super) fn of_key(key: &[u8], count: usize) -> usize {
    let count = u64::try_from(count).unwrap_or(u64::MAX).max(1);
    usize::try_from(u64::from(murmur2(key) & 0x7fff_ffff) % count).unwrap_or(0)
}

/// MurmurHash2 with 32 bits and the seed of Kafka's clients.
fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    // The length counts as a number of 32 bits; keys are far shorter.
    let mut hash = SEED ^ u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (byte, shift) in rest.iter().zip([0, 8, 16]) {
            hash ^= u32::from(*byte) << shift;
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values that the tests of Kafka's own client (`UtilsTest.testMurmur2`) expect.
    #[test]
    fn the_hash_is_the_one_of_kafkas_clients() {
        for (text, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), expected, "{text}");
        }
    }

    #[test]
    fn a_partition_is_one_of_those_that_there_are() {
        for count in [1, 2, 7, 10_000] {
            for key in ["", "a", "client-1", "\u{1f980}"] {
                assert!(of_key(key.as_bytes(), count) < count);
            }
        }
        assert_eq!(of_key(b"foobar", 8), usize::try_from((-790_332_482_i32 & 0x7fff_ffff) % 8).unwrap());
        assert_eq!(of_key(b"any", 0), 0);
    }
}
