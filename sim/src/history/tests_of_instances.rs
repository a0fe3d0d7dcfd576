//! What instances of latent workers must not do is found, and nothing else is.

use botmaster::core::ids::*;

use super::*;

const SECOND: Micros = 1_000_000;

fn tag(n: u64) -> InstanceTag {
    InstanceTag::new(WorkerId(1), n)
}

/// One deed a minute.
fn history(deeds: impl IntoIterator<Item = (u64, Deed)>) -> History {
    let notes = (1..).zip(deeds).map(|(minute, (n, deed))| InstanceNote {
        at: minute * 60 * SECOND,
        tag: tag(n),
        deed,
    });
    History { instances: notes.collect(), calm: true, ..History::default() }
}

fn ran(history: &mut History, n: u64, from_minute: i64, to_minute: Option<i64>) {
    history.ran.push(Run {
        worker: "l1".into(),
        instance: format!("{}/1", tag(n)),
        build: BuildId(1),
        requests: Vec::new(),
        command: "c-1-0".into(),
        begin: from_minute * 60 * SECOND,
        end: to_minute.map(|minute| minute * 60 * SECOND),
        killed: false,
    });
}

fn found(history: &History) -> Vec<String> {
    check(history, &Leeway::default()).iter().map(ToString::to_string).collect()
}

fn started(dialled_minute: i64) -> Deed {
    Deed::Started { build: BuildId(1), dialled: dialled_minute * 60 * SECOND }
}

use Deed::*;

#[test]
fn fx04_fx06_fx09_fx10_a_good_life_has_no_finding() {
    let mut good = history([
        (1, Wished),
        (1, Asked),
        (1, Made),
        (1, Attached),
        (1, started(4)),
        (1, Released),
        (1, Resisted),
        (1, Gone),
        (1, Forgotten),
        (2, Wished),
        (2, Asked),
        (2, Made),
        (2, Dead),
        (2, Released),
        (2, Gone),
        (2, Forgotten),
    ]);
    ran(&mut good, 1, 5, Some(6));
    assert_eq!(found(&good), [""; 0]);
}

#[test]
fn fx09_one_that_is_asked_for_before_it_is_stored_is_found() {
    let bad = history([(1, Asked), (1, Wished), (1, Released), (1, Gone), (1, Forgotten)]);
    let text = format!("I12: FX09: the provider was asked for {}, which is not stored", tag(1));
    assert_eq!(found(&bad), [text]);
}

#[test]
fn fx10_one_that_is_forgotten_or_left_is_found() {
    let life = [(1, Wished), (1, Asked), (1, Made)];
    let left = [
        format!("I15: FX10: the provider has {} in the end", tag(1)),
        format!("I15: FX10: the store has {} in the end", tag(1)),
    ];
    assert_eq!(found(&history(life.clone())), left);
    let forgotten = history(life.into_iter().chain([(1, Released), (1, Forgotten), (1, Gone)]));
    let text = format!("I15: FX10: {} was forgotten while the provider had it", tag(1));
    assert_eq!(found(&forgotten), [text]);
}

#[test]
fn fx04_a_start_on_one_that_was_given_up_before_it_came_is_found() {
    let life = |dialled| {
        history([
            (1, Wished),
            (1, Asked),
            (1, Made),
            (1, Released),
            (1, started(dialled)),
            (1, Gone),
            (1, Forgotten),
        ])
    };
    assert_eq!(found(&life(3)), [""; 0], "it was on its way");
    let text = format!("I3: FX04: build 1 was started on {}, which was given up", tag(1));
    assert_eq!(found(&life(5)), [text]);
}

#[test]
fn fx06_one_that_is_let_go_while_it_builds_is_found() {
    let life = [(1, Wished), (1, Asked), (1, Made), (1, Attached)];
    let end = [(1, Released), (1, Gone), (1, Forgotten)];
    let mut bad = history(life.clone().into_iter().chain(end.clone()));
    ran(&mut bad, 1, 4, Some(6));
    let text = format!("I4: FX06: {} was let go while c-1-0 ran on it", tag(1));
    assert_eq!(found(&bad), [text]);
    for excuse in [Dead, Detached] {
        let mut good = history(life.clone().into_iter().chain([(1, excuse)]).chain(end.clone()));
        ran(&mut good, 1, 4, Some(7));
        assert_eq!(found(&good), [""; 0]);
    }
}

#[test]
fn fx10_a_second_one_beside_one_that_is_there_is_found() {
    let first = [(1, Wished), (1, Asked), (1, Made), (1, Released)];
    let second = [(2, Wished), (2, Asked), (2, Made), (2, Released), (2, Gone), (2, Forgotten)];
    let end = [(1, Gone), (1, Forgotten)];
    let all = |times| {
        let resists = std::iter::repeat_n((1, Resisted), times);
        let before = first.clone().into_iter().chain(resists);
        history(before.chain(second.clone()).chain(end.clone()))
    };
    let text = format!("I4: {} was made while {} was there", tag(2), tag(1));
    assert_eq!(found(&all(2)), [text]);
    assert_eq!(found(&all(3)), [""; 0], "it resists for too long");
    let both = history([(1, Wished), (2, Wished), (1, Forgotten), (2, Forgotten)]);
    let text = format!("I4: {} was wished for while {} was wanted", tag(2), tag(1));
    assert_eq!(found(&both), [text]);
}
