//! Mail that comes by two ways.

use botmaster::core::inbox::{Inbox, Put, SenderId};
use proptest::prelude::*;

#[test]
pub fn t07_late_mail_of_the_predecessor_is_put_before_newer_mail() {
    let mut inbox = Inbox::default();
    let mut ready = Vec::new();
    let sender = SenderId(1);
    assert_eq!(inbox.put(sender, 1, "a", &mut ready), Put::Ready);
    assert_eq!(inbox.put(sender, 3, "c", &mut ready), Put::Waits);
    assert_eq!(inbox.put(sender, 2, "b", &mut ready), Put::Ready);
    assert_eq!(ready, ["a", "b", "c"]);
    assert_eq!(inbox.put(sender, 2, "b", &mut ready), Put::Duplicate);
    assert_eq!(inbox.waiting(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// Whatever order and however often mail arrives, each sender's is handled
    /// once and in its order.
    #[test]
    fn t07_every_senders_mail_is_handled_once_and_in_order(
        order in Just((0..3u64).flat_map(|s| (1..=20u64).map(move |n| (s, n))).collect::<Vec<_>>()).prop_shuffle(),
        again in prop::collection::vec((0..3u64, 1..=20u64), 0..40),
    ) {
        let mut inbox = Inbox::default();
        let mut ready = Vec::new();
        for (sender, seq) in order.into_iter().chain(again) {
            inbox.put(SenderId(sender), seq, (sender, seq), &mut ready);
        }
        for sender in 0..3 {
            let handled: Vec<_> = ready.iter().filter(|(s, _)| *s == sender).map(|(_, n)| *n).collect();
            prop_assert_eq!(handled, (1..=20).collect::<Vec<_>>());
        }
    }
}
