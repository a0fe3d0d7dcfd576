//! The SlaveBuilder's table: every state meets every event (row S08).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use botmaster::core::builder::{ReplyId, StartOrder};
use botmaster::core::ids::*;
use botmaster::core::slave_builder::{
    EVENTS, Effect, Event, Hears, STATES, SlaveBuilderCore, Stands, State, TABLE,
};
use botmaster::core::time::Timestamp;
use botmaster::core::transitions::find;
use proptest::prelude::*;

use crate::kit::config;

const MINE: u64 = 1;
const OTHER: u64 = 2;
const BEGIN: Timestamp = Timestamp(1_000_000);
/// After every deadline.
const LATE: Timestamp = Timestamp(10_000_000_000);

fn order(id: u64) -> Box<StartOrder> {
    Box::new(StartOrder {
        claim: ClaimId(u128::from(id)),
        build: BuildId(id),
        requests: vec![(RequestId(1), Epoch(1))],
        ping_timeout: Duration::from_secs(10),
        config: Arc::new(config(&["w1"])),
    })
}

fn event(kind: Hears, id: u64) -> Event {
    let claim = ClaimId(u128::from(id));
    match kind {
        Hears::Ready => Event::Ready { building: None },
        Hears::ReadyWithBuild => Event::Ready { building: Some(claim) },
        Hears::Failed => Event::Failed { error: "no folder".into() },
        Hears::Start => Event::Start(order(id)),
        Hears::CallBack => Event::CallBack(claim),
        Hears::Leave => Event::Leave { claim, request: RequestId(1) },
        Hears::Ping => Event::Ping(ReplyId(id)),
        Hears::Pong => Event::PingEnded(true),
        Hears::PingFailed => Event::PingEnded(false),
        Hears::Accepted => Event::Accepted(BuildId(id)),
        Hears::Refused => {
            Event::Refused { build: BuildId(id), code: "disk".into(), message: "full".into() }
        }
        Hears::BuildOver => Event::BuildOver(claim),
        Hears::Detach => Event::Detach,
        Hears::Deadline => Event::DeadlineReached,
    }
}

fn hear(core: &mut SlaveBuilderCore, now: Timestamp, event: Event) -> Vec<Effect> {
    let mut effects = Vec::new();
    core.handle(now, event, &mut effects);
    effects
}

/// A SlaveBuilder that was led to this state, with a person's ping or without.
fn standing(stands: Stands, pinged: bool) -> Option<SlaveBuilderCore> {
    let way: &[Hears] = match stands {
        Stands::Attaching => &[],
        Stands::Idle => &[Hears::Ready],
        Stands::PingingToStart => &[Hears::Ready, Hears::Start],
        Stands::PingingForPerson => &[Hears::Ready, Hears::Ping],
        Stands::Starting => &[Hears::Ready, Hears::Start, Hears::Pong],
        Stands::Building => &[Hears::ReadyWithBuild],
        Stands::Detached => &[Hears::Ready, Hears::Detach],
    };
    let until = BEGIN + Duration::from_secs(30);
    let mut core = SlaveBuilderCore::attaching(until, Duration::from_secs(30));
    for kind in way {
        hear(&mut core, BEGIN, event(*kind, MINE));
    }
    assert_eq!(Stands::from(core.state()), stands);
    if pinged {
        hear(&mut core, BEGIN, event(Hears::Ping, 77));
        if Stands::from(core.state()) != stands || !core.is_pinging() {
            return None;
        }
    }
    Some(core)
}

/// What must hold of a SlaveBuilder at every moment.
fn is_consistent(core: &SlaveBuilderCore) {
    let (state, pinging) = (core.state(), core.is_pinging());
    match Stands::from(state) {
        Stands::Attaching | Stands::Idle | Stands::Detached => {
            assert!(!pinging, "{state:?} with a ping");
        }
        Stands::PingingToStart | Stands::PingingForPerson => {
            assert!(pinging, "{state:?} without a ping would never end");
        }
        Stands::Starting | Stands::Building => {}
    }
    let timed = matches!(state, State::Attaching { .. } | State::Starting { .. });
    assert_eq!(core.next_deadline().is_some(), timed, "{state:?}");
    assert_eq!(core.report().is_none(), matches!(state, State::Detached));
}

/// All pairs, with and without a person's ping, about its own build and about
/// another one, in time and late.
#[test]
fn s08_every_state_meets_every_event_as_the_table_says() {
    let mut seen = BTreeSet::new();
    for (stands, kind) in STATES.iter().flat_map(|s| EVENTS.iter().map(move |e| (*s, *e))) {
        let row = find(TABLE, &stands, &kind).unwrap();
        for (pinged, id) in [(false, MINE), (true, MINE), (false, OTHER), (true, OTHER)] {
            let Some(mut core) = standing(stands, pinged) else { continue };
            let before = core.clone();
            let now = if kind == Hears::Deadline { LATE } else { BEGIN };
            hear(&mut core, now, event(kind, id));
            is_consistent(&core);
            let after = Stands::from(core.state());
            seen.insert((stands, kind, after));
            if row.to.is_empty() {
                assert_eq!(core, before, "{stands:?} is said to ignore {kind:?}");
            } else if id == MINE {
                assert!(row.to.contains(&after), "{stands:?} by {kind:?} is {after:?}");
            }
        }
    }
    let said: BTreeSet<_> =
        TABLE.iter().flat_map(|row| row.to.iter().map(|to| (row.from, row.event, *to))).collect();
    let never: Vec<_> = said.difference(&seen).collect();
    assert!(never.is_empty(), "the table says, and it never happens: {never:#?}");
}

#[test]
fn s08_news_of_another_build_moves_nothing() {
    let about_a_build = [Hears::CallBack, Hears::Accepted, Hears::Refused, Hears::BuildOver];
    for (stands, kind) in STATES.iter().flat_map(|s| about_a_build.iter().map(move |e| (*s, *e))) {
        let mut core = standing(stands, false).unwrap();
        let before = core.clone();
        hear(&mut core, BEGIN, event(kind, OTHER));
        assert_eq!(core, before, "{stands:?} moved by {kind:?} of another build");
    }
}

#[test]
fn s08_the_seeds_three_impossible_ones_leave_it_consistent() {
    // An attach answer after the detach.
    let mut core = standing(Stands::Attaching, false).unwrap();
    assert!(matches!(hear(&mut core, BEGIN, Event::Detach)[..], [Effect::TellAttachFailed { .. }]));
    for kind in [Hears::Ready, Hears::ReadyWithBuild, Hears::Failed] {
        assert!(matches!(hear(&mut core, BEGIN, event(kind, MINE))[..], [Effect::Ignored(_)]));
        assert_eq!(*core.state(), State::Detached);
    }
    // A detach during a ping: nobody waits for ever, and nothing comes back.
    let mut core = standing(Stands::PingingToStart, true).unwrap();
    let effects = hear(&mut core, BEGIN, Event::Detach);
    assert!(effects.contains(&Effect::EndPing));
    assert!(effects.contains(&Effect::TellPing { reply: ReplyId(77), ok: false }));
    assert!(effects.iter().any(|e| matches!(e, Effect::TellStart { outcome: Err(_), .. })));
    assert!(matches!(hear(&mut core, BEGIN, Event::PingEnded(true))[..], [Effect::Ignored(_)]));
    assert_eq!(*core.state(), State::Detached);
    // Two starts: the second one is sent back, the first goes on.
    let mut core = standing(Stands::Idle, false).unwrap();
    hear(&mut core, BEGIN, event(Hears::Start, MINE));
    let second = hear(&mut core, BEGIN, event(Hears::Start, OTHER));
    let back = ClaimId(u128::from(OTHER));
    assert!(
        matches!(&second[..], [Effect::TellStart { claim, outcome: Err(_) }] if *claim == back)
    );
    let effects = hear(&mut core, BEGIN, Event::PingEnded(true));
    assert!(matches!(&effects[..], [Effect::SendStart(order)] if order.build == BuildId(MINE)));
}

/// Busy is neither IDLE nor LATENT: only an idle one takes a start.
#[test]
fn s01_only_an_idle_one_takes_a_start() {
    for stands in STATES {
        let mut core = standing(*stands, false).unwrap();
        let effects = hear(&mut core, BEGIN, event(Hears::Start, OTHER));
        let pings = effects.iter().any(|effect| matches!(effect, Effect::StartPing { .. }));
        assert_eq!(pings, *stands == Stands::Idle, "{stands:?}");
        let answered = effects.iter().any(|effect| matches!(effect, Effect::TellStart { .. }));
        assert_eq!(answered, !pings, "{stands:?}: who is not started is told so");
    }
}

#[test]
fn s04_a_refused_start_leaves_a_persons_ping_under_way() {
    for end in [event(Hears::Refused, MINE), Event::DeadlineReached] {
        let mut core = standing(Stands::Starting, true).unwrap();
        hear(&mut core, LATE, end);
        assert_eq!(*core.state(), State::Pinging { order: None });
        let effects = hear(&mut core, LATE, Event::PingEnded(true));
        assert!(effects.contains(&Effect::TellPing { reply: ReplyId(77), ok: true }));
        assert_eq!(*core.state(), State::Idle);
    }
}

/// What a SlaveBuilder owes to those around it.
#[derive(Default)]
struct Debts {
    starts: BTreeMap<ClaimId, u32>,
    pings: BTreeMap<ReplyId, u32>,
    leaves: u32,
    attached: bool,
    told_off: bool,
    on_the_wire: bool,
    answered: bool,
}

impl Debts {
    fn take_in(&mut self, heard: &Event) {
        match heard {
            Event::Start(order) => *self.starts.entry(order.claim).or_default() += 1,
            Event::Ping(reply) => *self.pings.entry(*reply).or_default() += 1,
            Event::Leave { .. } => self.leaves += 1,
            Event::PingEnded(ok) => {
                self.answered = *ok && self.on_the_wire;
                self.on_the_wire = false;
            }
            _ => self.answered = false,
        }
    }

    fn settle(&mut self, effect: &Effect) {
        match effect {
            Effect::TellStart { claim, .. } | Effect::TellInDoubt(claim) => {
                let owed = self.starts.get_mut(claim).expect("answer to a start of nobody's");
                *owed = owed.checked_sub(1).expect("a start is answered twice");
            }
            Effect::TellPing { reply, .. } => {
                let owed = self.pings.get_mut(reply).expect("answer to a ping of nobody's");
                *owed = owed.checked_sub(1).expect("a ping is answered twice");
            }
            Effect::TellLeft { .. } => {
                self.leaves = self.leaves.checked_sub(1).expect("a leave is answered twice");
            }
            Effect::StartPing { .. } => {
                assert!(!self.on_the_wire, "two pings on the wire");
                self.on_the_wire = true;
            }
            Effect::EndPing => self.on_the_wire = false,
            Effect::SendStart(order) => {
                assert!(!order.requests.is_empty(), "a start for nobody");
                assert!(self.answered, "i04: a start without an answered ping");
                assert!(self.attached && !self.told_off, "i04: a start without a worker");
            }
            Effect::TellAttached { .. } => {
                assert!(!self.attached && !self.told_off);
                self.attached = true;
            }
            Effect::TellAttachFailed { .. } | Effect::TellDetached => {
                assert!(!self.told_off, "told off twice");
                self.told_off = true;
            }
            Effect::TightenPing(_)
            | Effect::TellIdle
            | Effect::DropConnection(_)
            | Effect::NoteBegins(_)
            | Effect::NoteEnds { .. }
            | Effect::Ignored(_) => {}
        }
    }
}

/// Any event at any time. A pong only while a ping is on the wire, else it
/// would be the next ping's: the shell drops those by their token.
fn any_events() -> impl Strategy<Value = Vec<(usize, u64, u64)>> {
    let kind = 0..EVENTS.len();
    proptest::collection::vec((kind, 1..6_u64, 0..4_000_000_u64), 200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// 500 lives of 200 events each.
    #[test]
    fn s08_whatever_comes_the_state_is_consistent_and_everybody_is_answered_once(
        events in any_events()
    ) {
        let until = BEGIN + Duration::from_secs(30);
        let mut core = SlaveBuilderCore::attaching(until, Duration::from_secs(30));
        let mut debts = Debts::default();
        let mut now = BEGIN;
        let mut serial = 100;
        for (kind, id, pass) in events {
            now = now + Duration::from_micros(pass);
            let kind = EVENTS[kind];
            // Most lives would end after a few events otherwise.
            if kind == Hears::Detach && id != 1 || kind == Hears::Failed && id > 2 {
                continue;
            }
            // Ids of starts and pings are never used twice.
            serial += 1;
            let fresh = matches!(kind, Hears::Start | Hears::Ping);
            let current = match core.state() {
                State::Pinging { order: Some(order) } | State::Starting { order, .. } => {
                    order.build.0
                }
                State::Building { claim } => u64::try_from(claim.0).unwrap(),
                _ => 0,
            };
            let id = if fresh { serial } else if id > 2 { current } else { id };
            let heard = event(kind, id);
            debts.take_in(&heard);
            for effect in hear(&mut core, now, heard) {
                debts.settle(&effect);
            }
            is_consistent(&core);
            prop_assert_eq!(debts.leaves, 0, "it is answered at once");
        }
        for effect in hear(&mut core, now, Event::Detach) {
            debts.settle(&effect);
        }
        is_consistent(&core);
        prop_assert!(debts.starts.values().all(|owed| *owed == 0), "a start is never answered");
        prop_assert!(debts.pings.values().all(|owed| *owed == 0), "a ping is never answered");
        prop_assert!(debts.told_off || !debts.attached);
    }
}
