//! The transition tables: whole, true of the machines, and drawn in
//! `docs/transitions.md`.

use std::collections::BTreeSet;
use std::fmt::{Debug, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use botmaster::core::build::{
    BuildCore, CommandEnd, Event as BuildHears, HEARS, Hears as WorkHears, Order, WORK_TABLE,
    WORKS, Work,
};
use botmaster::core::builder::{CAUSES, STAGE_TABLE, STAGES, Stage};
use botmaster::core::ids::*;
use botmaster::core::latent_slave_builder as latent;
use botmaster::core::rng::Rng;
use botmaster::core::slave_builder::{EVENTS, STATES, Stands, TABLE};
use botmaster::core::time::{Now, Timestamp, WallTime};
use botmaster::core::transitions::{
    BUILD, BuildEvent, BuildStands, REQUEST, RequestEvent, RequestStands, Row, Word,
};
use botmaster::core::values::{BuilderConfig, Factory, StepSpec};

use crate::kit::{config, run_step};

const REQUEST_STATES: &[RequestStands] = {
    use RequestStands::*;
    &[Unknown, Queued, Claimed, Done, Cancelled]
};
const REQUEST_EVENTS: &[RequestEvent] = {
    use RequestEvent::*;
    &[Submit, Claim, Unclaim, UnclaimCancelled, Leave, Finish, FinishRequeue, Cancel, SetPriority]
};
const BUILD_STATES: &[BuildStands] = {
    use BuildStands::*;
    &[Unknown, Claimed, Running, Finished]
};
const BUILD_EVENTS: &[BuildEvent] = {
    use BuildEvent::*;
    &[Claim, Unclaim, Leave, Start, Adopt, Finish]
};

/// Every state with every event, once, in order; every state can be reached
/// from the first one.
fn is_whole<S, E>(table: &'static [Row<S, E>], states: &[S], events: &[E])
where
    S: Copy + Ord + Debug,
    E: Copy + Ord + Debug,
{
    let listed: Vec<_> = table.iter().map(|row| (row.from, row.event)).collect();
    let all: Vec<_> = states.iter().flat_map(|s| events.iter().map(move |e| (*s, *e))).collect();
    assert_eq!(listed, all);
    is_connected(table, states);
}

fn is_connected<S: Copy + Ord + Debug, E>(table: &'static [Row<S, E>], states: &[S]) {
    let mut reached = BTreeSet::from([states[0]]);
    loop {
        let next: BTreeSet<S> = table
            .iter()
            .filter(|row| reached.contains(&row.from))
            .flat_map(|row| row.to)
            .copied()
            .chain(reached.iter().copied())
            .collect();
        if next == reached {
            break;
        }
        reached = next;
    }
    assert_eq!(reached, states.iter().copied().collect(), "states that nothing leads to");
}

#[test]
fn s08_the_tables_have_every_state_with_every_event_once() {
    is_whole(TABLE, STATES, EVENTS);
    is_whole(latent::TABLE, latent::STATES, latent::EVENTS);
    is_whole(WORK_TABLE, WORKS, HEARS);
    is_whole(REQUEST, REQUEST_STATES, REQUEST_EVENTS);
    is_whole(BUILD, BUILD_STATES, BUILD_EVENTS);
    is_connected(STAGE_TABLE, STAGES);
    let mut pairs: Vec<_> = STAGE_TABLE.iter().map(|row| (row.from, row.event)).collect();
    assert!(pairs.is_sorted());
    pairs.dedup();
    assert_eq!(pairs.len(), STAGE_TABLE.len(), "a pair is there twice");
    let caused: BTreeSet<_> = STAGE_TABLE.iter().map(|row| row.event).collect();
    assert_eq!(caused, CAUSES.iter().copied().collect(), "a cause that moves nothing");
}

#[test]
fn i07_nothing_leads_out_of_an_end() {
    fn leads_out<S: PartialEq, E>(table: &'static [Row<S, E>], end: &S) -> bool {
        table.iter().any(|row| row.from == *end && row.to.iter().any(|to| to != end))
    }
    assert!(!leads_out(TABLE, &Stands::Detached));
    assert!(!leads_out(WORK_TABLE, &Work::Over));
    assert!(!leads_out(REQUEST, &RequestStands::Done));
    assert!(!leads_out(REQUEST, &RequestStands::Cancelled));
    assert!(!leads_out(BUILD, &BuildStands::Finished));
}

// ---- a build's work --------------------------------------------------------

fn two_steps() -> Arc<BuilderConfig> {
    let limited = StepSpec { timeout: Some(Duration::from_secs(60)), ..run_step("one") };
    let factory = Arc::new(Factory { steps: vec![limited, run_step("two")] });
    let max_time = Some(Duration::from_secs(1000));
    Arc::new(BuilderConfig { factory, max_time, ..config(&["w1"]) })
}

fn new_build(build: u64, rng: &mut Rng) -> BuildCore {
    BuildCore::new(Order {
        claim: ClaimId(u128::from(build)),
        build: BuildId(build),
        incarnation: Incarnation(1),
        epoch: Epoch(1),
        config: two_steps(),
        worker: "w1".into(),
        infra_tries: u32::try_from(rng.index(5)).unwrap(),
        losses: Vec::new(),
        kill_time: Duration::from_secs(10),
    })
}

/// An event of this kind, mostly about what goes on.
fn work_event(kind: WorkHears, build: u64, rng: &mut Rng) -> BuildHears {
    let command = CommandId::for_step(BuildId(build), rng.index(3));
    match kind {
        WorkHears::Begin => BuildHears::Begin,
        WorkHears::InDoubt => BuildHears::InDoubt { wait: Duration::from_secs(150) },
        WorkHears::Recover => BuildHears::Recover {
            last_step: Some((rng.index(2), rng.index(2) == 0)),
            results: Vec::new(),
            times: Vec::new(),
            step_ran: Duration::from_secs(1),
            ran: Duration::from_secs(2),
            hold: Duration::from_secs(rng.index(3) as u64 * 100),
        },
        WorkHears::Written => BuildHears::Written,
        WorkHears::WriteDelayed => {
            BuildHears::WriteFailed { transient: true, error: "full".into() }
        }
        WorkHears::WriteFenced => {
            BuildHears::WriteFailed { transient: false, error: "fenced".into() }
        }
        WorkHears::CommandEnded => {
            let end = match rng.index(3) {
                0 => CommandEnd::Exit(0),
                1 => CommandEnd::Exit(1),
                _ => CommandEnd::Killed("lease".into()),
            };
            BuildHears::CommandEnded { command, end, properties: Vec::new() }
        }
        WorkHears::LogClosed => BuildHears::LogClosed,
        WorkHears::Silent => {
            let since = (rng.index(2) == 0).then_some(Duration::from_secs(1000));
            BuildHears::Silent { command, since }
        }
        WorkHears::Stop => BuildHears::Stop { reason: "enough".into() },
        WorkHears::Away => BuildHears::Away,
        WorkHears::Back | WorkHears::BackLost => BuildHears::Back {
            incarnation: Incarnation(2),
            command: (rng.index(2) == 0).then_some(command),
            lost: kind == WorkHears::BackLost,
        },
        WorkHears::Gone => BuildHears::Gone,
        WorkHears::Broken => BuildHears::Broken { error: "a panic".into() },
        WorkHears::Deadline => BuildHears::DeadlineReached,
    }
}

/// A hundred thousand events of every kind at every moment. The build itself
/// asserts that it moves only as its table says; here is what the table says
/// and never happens.
#[test]
fn s08_a_builds_work_does_all_that_its_table_says_and_nothing_else() {
    let mut rng = Rng::seeded(8);
    let mut seen = BTreeSet::new();
    let (mut build, mut core) = (1, new_build(1, &mut rng));
    let mut now = Now { mono: Timestamp(1_000_000), wall: WallTime(0) };
    let mut silent = 0;
    for _ in 0..100_000 {
        silent = if core.is_over() { silent + 1 } else { 0 };
        if silent > 20 {
            build += 1;
            core = new_build(build, &mut rng);
        }
        // Time passes in steps of which some reach a deadline.
        now.mono = now.mono + Duration::from_secs([0, 1, 30, 200][rng.index(4)]);
        let kind = HEARS[rng.index(HEARS.len())];
        let before = core.work();
        let row = WORK_TABLE.iter().find(|row| row.from == before && row.event == kind).unwrap();
        let unchanged = row.to.is_empty().then(|| core.clone());
        core.handle(now, work_event(kind, build, &mut rng), &mut Vec::new());
        if let Some(unchanged) = unchanged {
            assert_eq!(core, unchanged, "{before:?} is said to ignore {kind:?}");
        }
        seen.insert((before, kind, core.work()));
    }
    let said: BTreeSet<_> = WORK_TABLE
        .iter()
        .flat_map(|row| row.to.iter().map(|to| (row.from, row.event, *to)))
        .collect();
    let never: Vec<_> = said.difference(&seen).collect();
    assert!(never.is_empty(), "the table says, and it never happens: {never:#?}");
}

// ---- the drawing -----------------------------------------------------------

/// Writes the file instead of comparing it.
const WRITE: &str = "BOTMASTER_WRITE_DOCS";

fn node(word: &str) -> String {
    word.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect()
}

/// One machine: its states as a diagram, then every pair.
fn drawn<S, E>(out: &mut String, title: &str, text: &str, table: &'static [Row<S, E>], states: &[S])
where
    S: Word + PartialEq,
    E: Word,
{
    writeln!(out, "\n## {title}\n\n{text}\n\n```mermaid\nstateDiagram-v2").unwrap();
    for state in states {
        writeln!(out, "    state \"{}\" as {}", state.word(), node(state.word())).unwrap();
    }
    writeln!(out, "    [*] --> {}", node(states[0].word())).unwrap();
    for from in states {
        for to in states.iter().filter(|to| *to != from) {
            let events: Vec<_> = table
                .iter()
                .filter(|row| row.from == *from && row.to.contains(to))
                .map(|row| row.event.word())
                .collect();
            if !events.is_empty() {
                let (from, to) = (node(from.word()), node(to.word()));
                writeln!(out, "    {from} --> {to}: {}", events.join(" / ")).unwrap();
            }
        }
        if !table.iter().any(|row| row.from == *from && row.to.iter().any(|to| to != from)) {
            writeln!(out, "    {} --> [*]", node(from.word())).unwrap();
        }
    }
    writeln!(out, "```\n\n| state | event | then | |\n| --- | --- | --- | --- |").unwrap();
    for row in table {
        let to: Vec<_> = row.to.iter().map(Word::word).collect();
        let to = if to.is_empty() { "(ignored)".into() } else { to.join(" *or* ") };
        writeln!(out, "| {} | {} | {to} | {} |", row.from.word(), row.event.word(), row.note)
            .unwrap();
    }
}

fn document() -> String {
    let mut out = String::from(
        "# Transitions\n\n\
         Drawn from the tables in the code by `cargo xtask diagrams`; a test compares. Change the\n\
         tables, not this file. `(ignored)`: the event is stale or impossible then; it is counted or\n\
         answered and changes nothing. Ids like B13 are rows of `docs/seed-rows.md` and\n\
         `docs/fault-matrix.md`. Arrows of a state to itself are left out of the diagrams.\n",
    );
    drawn(
        &mut out,
        "A SlaveBuilder",
        "One worker's standing with one builder: `src/core/slave_builder/table.rs`.",
        TABLE,
        STATES,
    );
    drawn(
        &mut out,
        "A LatentSlaveBuilder",
        "The same with a latent worker, from configuration on:\n\
         `src/core/latent_slave_builder/table.rs`. While it is up there is a SlaveBuilder beside it.",
        latent::TABLE,
        latent::STATES,
    );
    drawn(
        &mut out,
        "A build at its builder",
        "From the choice of a worker to the end: `src/core/builder/table.rs`. A cause without a row\n\
         in a stage is stale there and ignored. In the words of the fault matrix a build is claimed\n\
         from the end of `claiming`, then starting, running, orphaned, finished.",
        STAGE_TABLE,
        STAGES,
    );
    drawn(
        &mut out,
        "A build's work",
        "What the build itself waits for while its builder calls it running or orphaned:\n\
         `src/core/build/table.rs`.",
        WORK_TABLE,
        WORKS,
    );
    drawn(
        &mut out,
        "A build in the store",
        "What survives a crash: `src/core/transitions.rs`.",
        BUILD,
        BUILD_STATES,
    );
    drawn(
        &mut out,
        "A build request in the store",
        "What survives a crash: `src/core/transitions.rs`.",
        REQUEST,
        REQUEST_STATES,
    );
    out
}

#[test]
fn s08_the_drawing_in_docs_is_what_the_tables_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/transitions.md");
    let drawn = document();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, &drawn).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == drawn, "docs/transitions.md is not what the tables say: cargo xtask diagrams");
}

/// `Away` is drawn as where a build comes from and goes to.
#[test]
fn s08_every_stage_is_left_again() {
    for stage in STAGES {
        let leaves = |row: &&Row<_, _>| row.from == *stage && row.to.iter().any(|to| to != stage);
        assert!(STAGE_TABLE.iter().any(|row| leaves(&row)), "{stage:?} holds a build for ever");
    }
    assert_eq!(STAGES[0], Stage::Away);
}
