//! What a reload changes, and who is tried first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use botmaster::core::bot_master::{Action, Plan, RestartPolicy, Roster};
use botmaster::core::builder::compare_to_setup;
use botmaster::core::ids::*;
use botmaster::core::time::Timestamp;
use botmaster::core::values::*;

use crate::kit::*;

#[test]
fn b03_every_setting_is_compared_one_readable_line_each() {
    let old = config(&["w1"]);
    assert!(compare_to_setup(&old, &old.clone()).is_empty());
    let lock = LockUse { name: "db".into(), kind: LockKind::Master, max_count: 2, count: 1 };
    let changes: Vec<(BuilderConfig, &str)> = vec![
        (config(&["w1", "w2"]), "workers changed from [w1] to [w1, w2]"),
        (BuilderConfig { builddir: "x".into(), ..old.clone() }, "builddir changed from unit to x"),
        (
            BuilderConfig {
                factory: Arc::new(Factory { steps: vec![run_step("a")] }),
                ..old.clone()
            },
            "factory changed: steps [test] to [a]",
        ),
        (
            BuilderConfig { locks: vec![lock], ..old.clone() },
            "locks changed from [] to [Master db 1/2]",
        ),
        (
            BuilderConfig { env: BTreeMap::from([("A".into(), "1".into())]), ..old.clone() },
            r#"env changed from {} to {"A": "1"}"#,
        ),
        (
            BuilderConfig { grace: Duration::from_secs(1), ..old.clone() },
            "grace changed from 150s to 1s",
        ),
        (
            BuilderConfig { merge: Merge::SameSource, ..old.clone() },
            "merge changed from none to same source",
        ),
        (
            BuilderConfig { merge: Merge::Properties(vec!["a".into(), "b".into()]), ..old.clone() },
            "merge changed from none to [a, b]",
        ),
        (
            BuilderConfig { max_builds: Some(2), ..old.clone() },
            "max_builds changed from no limit to 2",
        ),
    ];
    for (new, line) in changes {
        assert_eq!(compare_to_setup(&old, &new), [line]);
    }
}

#[test]
fn t08_the_plan_keeps_what_did_not_change() {
    let named = |name: &str| Arc::new(BuilderConfig { name: name.into(), ..config(&["w1"]) });
    let old = BTreeMap::from(["keep", "gone", "change"].map(|n| (BuilderName::from(n), named(n))));
    let changed = Arc::new(BuilderConfig { name: "change".into(), ..config(&["w2"]) });
    let new = [named("keep"), changed, named("new")];
    let worker =
        |name: &str, max_builds| WorkerConfig { name: name.into(), max_builds, latent: None };
    let old_workers = BTreeMap::from([("w1".into(), worker("w1", 1))]);
    let new_workers = [worker("w1", 3), worker("w2", 1)];
    let plan = Plan::between(&old, &new, &old_workers, &new_workers);
    let actions: Vec<_> =
        plan.builders.iter().map(|entry| (entry.name.as_str().to_owned(), entry.action)).collect();
    assert_eq!(
        actions,
        [
            ("keep".to_owned(), Action::Keep),
            ("change".to_owned(), Action::Change),
            ("new".to_owned(), Action::Add),
            ("gone".to_owned(), Action::Remove),
        ]
    );
    assert_eq!(plan.workers[0].differences, ["max_builds changed from 1 to 3"]);
    assert_eq!(plan.workers[1].action, Action::Add);
}

#[test]
pub fn b32_the_oldest_waiting_request_goes_first_and_ties_follow_the_configuration() {
    let names: Vec<BuilderName> = ["c", "a", "b", "d"].map(BuilderName::from).into();
    let mut roster = Roster::default();
    roster.configure(names.iter());
    for (name, at) in [("a", 5), ("b", 2), ("c", 5)] {
        roster.oldest_changed(name.into(), Some(BuildsetId(at)));
    }
    let w1 = WorkerName::from("w1");
    assert_eq!(roster.queue_up(&w1, names.iter().cloned()), ["d".into()], "it has nothing");
    let order: Vec<_> = std::iter::from_fn(|| roster.next_in_line(&w1)).collect();
    assert_eq!(order, ["b", "c", "a"].map(BuilderName::from));
    roster.oldest_changed("b".into(), None);
    assert!(!roster.is_waiting(&"b".into()));
}

#[test]
fn b16_who_was_refused_stands_in_line_until_the_offer_comes_to_it() {
    let [a, b, c] = ["a", "b", "c"].map(BuilderName::from);
    let [w1, w2] = ["w1", "w2"].map(WorkerName::from);
    let mut roster = Roster::default();
    roster.configure([&a, &b, &c].into_iter());
    for (builder, set) in [(&a, 3), (&b, 2), (&c, 1)] {
        roster.oldest_changed(builder.clone(), Some(BuildsetId(set)));
    }
    assert!(roster.queue_up(&w1, [a.clone(), b.clone()]).is_empty(), "all have something");
    assert_eq!(roster.next_in_line(&w2), None, "nobody was refused there");
    assert_eq!(roster.next_in_line(&w1), Some(b.clone()), "c was not refused");
    roster.queue_up(&w1, [c.clone()]);
    roster.oldest_changed(c.clone(), Some(BuildsetId(9)));
    assert_eq!(roster.next_in_line(&w1), Some(a.clone()), "c's oldest request is the youngest");
    roster.oldest_changed(c.clone(), None);
    assert!(roster.is_in_line(&w1, &c));
    assert_eq!(roster.next_in_line(&w1), Some(c.clone()), "it has nothing any more, and hears it");
    assert_eq!(roster.next_in_line(&w1), None);
    roster.queue_up(&w2, [a, b.clone()]);
    roster.oldest_changed(b, None);
    assert_eq!(roster.break_up().len(), 1, "nobody stands in line any more");
    assert_eq!(roster.next_in_line(&w2), None);
}

#[test]
fn fm06_more_than_five_panics_in_a_minute_are_too_many() {
    let mut policy = RestartPolicy::default();
    let at = |s: u64| Timestamp(s * 1_000_000);
    assert!((0..5).all(|s| policy.allows(at(s))));
    assert!(!policy.allows(at(5)));
    assert!(policy.allows(at(62)), "the first ones are long ago");
    assert_eq!(policy.total(), 6);
}

#[test]
fn t08_a_latent_workers_settings_are_compared() {
    let options = |dir: &str| ProcessOptions {
        dir: dir.into(),
        token_file: "t".into(),
        env: BTreeMap::from([("SECRET".to_owned(), dir.to_owned())]),
    };
    let latent = |dir: &str, idle| LatentConfig {
        provider: Provider::Process(options(dir)),
        substantiate_timeout: 60 * SECOND,
        idle_timeout: idle,
    };
    let lines = |old: Option<LatentConfig>, new: Option<LatentConfig>| {
        let worker = |latent| WorkerConfig { name: "w1".into(), max_builds: 1, latent };
        let old = BTreeMap::from([("w1".into(), worker(old))]);
        Plan::between(&BTreeMap::new(), &[], &old, &[worker(new)]).workers[0].differences.clone()
    };
    let old = latent("a", SECOND);
    assert!(lines(Some(old.clone()), Some(old.clone())).is_empty());
    assert_eq!(lines(None, Some(old.clone())), ["it is a latent worker now"]);
    assert_eq!(lines(Some(old.clone()), None), ["it is no latent worker any more"]);
    assert_eq!(
        lines(Some(old.clone()), Some(latent("a", 2 * SECOND))),
        ["latent.idle_timeout changed from 1s to 2s"]
    );
    assert_eq!(
        lines(Some(old), Some(latent("b", SECOND))),
        ["latent.dir changed from a to b", "latent.env changed"]
    );
}
