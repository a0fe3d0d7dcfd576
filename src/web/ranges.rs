//! `Range` headers: one part of some bytes.

/// The part that is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// From the first byte to the last, both included.
    Bytes {
        /// Counted from 0.
        first: u64,
        /// At most the last there is.
        last: u64,
    },
    /// It begins where there is nothing.
    Beyond,
}

/// Reads the header's value. None when it is no single range of bytes: then all
/// is sent, as HTTP wants it.
pub(super) fn part(value: &str, total: u64) -> Option<Part> {
    let (first, last) = value.trim().strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = (first.trim(), last.trim());
    let end = total.checked_sub(1);
    if first.is_empty() {
        let count: u64 = last.parse().ok()?;
        let Some(end) = end.filter(|_| count > 0) else { return Some(Part::Beyond) };
        return Some(Part::Bytes { first: total.saturating_sub(count), last: end });
    }
    let first: u64 = first.parse().ok()?;
    let last: u64 = if last.is_empty() { u64::MAX } else { last.parse().ok()? };
    if last < first {
        return None;
    }
    match end.filter(|end| first <= *end) {
        Some(end) => Some(Part::Bytes { first, last: last.min(end) }),
        None => Some(Part::Beyond),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(first: u64, last: u64) -> Option<Part> {
        Some(Part::Bytes { first, last })
    }

    #[test]
    fn single_ranges_are_read_and_others_are_not() {
        assert_eq!(part("bytes=0-9", 100), bytes(0, 9));
        assert_eq!(part("bytes=90-", 100), bytes(90, 99));
        assert_eq!(part("bytes=90-1000", 100), bytes(90, 99));
        assert_eq!(part("bytes=-10", 100), bytes(90, 99));
        assert_eq!(part("bytes=-1000", 100), bytes(0, 99));
        assert_eq!(part("bytes=100-", 100), Some(Part::Beyond));
        assert_eq!(part("bytes=0-", 0), Some(Part::Beyond));
        assert_eq!(part("bytes=-0", 100), Some(Part::Beyond));
        for other in ["bytes=9-0", "bytes=0-1,3-4", "lines=0-1", "bytes=a-b", "bytes=-", "bytes"] {
            assert_eq!(part(other, 100), None, "{other}");
        }
    }
}
