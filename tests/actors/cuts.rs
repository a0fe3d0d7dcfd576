//! The link is cut at every byte of a conversation, in both directions: a real
//! master's connections and actors on one side, the worker program's agent and
//! its link on the other, and a pipe between them that breaks where it is told.
//! Only the processes are played, so that it is known what ran.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use botmaster::actors::Greeter;
use botmaster::core::ids::*;
use botmaster::core::time::Timestamp;
use botmaster::protocol::json_v1::Outcome;
use botmaster::store::Change;
use botmaster::worker::agent::{Agent, AgentConfig, Effect, Ended, Event};
use botmaster::worker::link::{Connection, talk};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use crate::house::{House, builder_with_steps, story_within, timers};

/// Conversations at the same time.
const AT_ONCE: usize = 160;
/// How long all of it may take.
const ALL: Duration = Duration::from_secs(100);
/// How long one request may take: a start that is lost costs a pause of 10 s.
const ONE: Duration = Duration::from_secs(40);
/// What a step writes, piece by piece; the last one is no UTF-8.
const PIECES: [(char, &[u8]); 4] =
    [('o', b"one\n"), ('e', "zw\u{f6}lf\nha".as_bytes()), ('o', b"lf\n"), ('o', b"\xff\xfe\n")];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Up,
    Down,
}

/// How many bytes have gone over a connection.
#[derive(Clone, Default)]
struct Passed {
    up: Rc<Cell<usize>>,
    down: Rc<Cell<usize>>,
}

/// A pipe between two ends that breaks when so many bytes have gone one way.
fn pipe(cut: Option<(Way, usize)>, passed: Passed) -> (DuplexStream, DuplexStream) {
    let (worker, near) = tokio::io::duplex(64 * 1024);
    let (far, master) = tokio::io::duplex(64 * 1024);
    actix_rt::spawn(async move {
        let (from_worker, to_worker) = tokio::io::split(near);
        let (from_master, to_master) = tokio::io::split(far);
        let limit = |way| cut.filter(|cut| cut.0 == way).map_or(usize::MAX, |cut| cut.1);
        // Both end together: a broken link is broken for both sides.
        tokio::select! {
            () = carry(from_worker, to_master, limit(Way::Up), &passed.up) => {}
            () = carry(from_master, to_worker, limit(Way::Down), &passed.down) => {}
        }
    });
    (worker, master)
}

async fn carry<R, W>(mut from: R, mut to: W, limit: usize, passed: &Cell<usize>)
where
    R: AsyncReadExt + Unpin,
    W: AsyncWriteExt + Unpin,
{
    let mut buffer = [0; 4096];
    while passed.get() < limit {
        let room = (limit - passed.get()).min(buffer.len());
        let Ok(count) = from.read(&mut buffer[..room]).await else { return };
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        passed.set(passed.get() + count);
    }
}

/// What the worker's side of one conversation came to.
#[derive(Default)]
struct Told {
    /// Commands that were run: how often each.
    ran: BTreeMap<CommandId, u32>,
    connections: u32,
    first: (usize, usize),
}

/// A worker program, but for its processes, that lives until `done`. Its first
/// connection is cut, the later ones stand.
async fn worker(
    name: String,
    token: String,
    greeter: Greeter,
    cut: Option<(Way, usize)>,
    done: Rc<Cell<bool>>,
) -> Told {
    let mut agent = Agent::new(AgentConfig {
        name: name.as_str().into(),
        instance: format!("i-{name}"),
        token,
        version: "0".into(),
        slots: 1,
        caps: vec!["shell/1".into()],
        labels: BTreeMap::new(),
        info: BTreeMap::new(),
        kill_time: Duration::from_secs(1),
        seed: 1,
    });
    let begun = Instant::now();
    // Waits between two connections are left out.
    let mut skipped = Duration::from_secs(1);
    let (events, mut incoming) = mpsc::channel(256);
    let mut connection: Option<(u64, Connection)> = None;
    let mut told = Told::default();
    let first = Passed::default();
    let mut next = Event::Tick;
    let mut effects = Vec::new();
    while !done.get() {
        let now = |skipped| Timestamp(0) + begun.elapsed() + skipped;
        agent.handle(now(skipped), next, &mut effects);
        let mut answers = VecDeque::new();
        loop {
            for effect in std::mem::take(&mut effects) {
                match effect {
                    Effect::Connect { link } => {
                        told.connections += 1;
                        let passed = if link == 1 { first.clone() } else { Passed::default() };
                        let (mine, theirs) = pipe(cut.filter(|_| link == 1), passed);
                        greeter.greet(theirs, "pipe".into());
                        let halves = async move { Ok(tokio::io::split(mine)) };
                        connection = Some((link, talk(halves, link, events.clone())));
                    }
                    Effect::Close { link } => {
                        connection.take_if(|(present, _)| *present == link);
                    }
                    Effect::Send { link, lane, frame } => {
                        let open = connection.as_ref().filter(|(present, _)| *present == link);
                        if let Some((_, open)) = open
                            && let Err(reason) = open.send(lane, frame)
                        {
                            connection = None;
                            answers.push_back(Event::Closed { link, reason: reason.into() });
                        }
                    }
                    Effect::MakeFolder { builder, .. } => {
                        answers.push_back(Event::FolderMade { builder, result: Ok(()) });
                    }
                    Effect::Run { build, command, .. } => {
                        *told.ran.entry(command.clone()).or_default() += 1;
                        answers.push_back(Event::Started { build, command: command.clone() });
                        let mut offset = 0;
                        for (ch, bytes) in PIECES {
                            answers.push_back(Event::Output {
                                build,
                                command: command.clone(),
                                ch,
                                offset,
                                bytes: Bytes::from_static(bytes),
                                at: 0,
                            });
                            offset += bytes.len() as u64;
                        }
                        let ended = Ended {
                            outcome: Outcome::Exit(0),
                            note: String::new(),
                            properties: BTreeMap::new(),
                            wall_ms: 1,
                            log: None,
                        };
                        answers.push_back(Event::Ended { build, command, ended });
                    }
                    Effect::Take { record } => {
                        answers.push_back(Event::Taken { build: record.build, result: Ok(()) });
                    }
                    Effect::Sweep { build } => answers.push_back(Event::Swept { build }),
                    Effect::Exit { cause } => panic!("{name} with {cut:?} ends: {cause:?}"),
                    Effect::Allow { .. }
                    | Effect::Kill { .. }
                    | Effect::Forget { .. }
                    | Effect::Lease { .. }
                    | Effect::Replay { .. }
                    | Effect::Trim { .. } => {}
                }
            }
            let Some(answer) = answers.pop_front() else { break };
            agent.handle(now(skipped), answer, &mut effects);
        }
        let due = agent.next_deadline().map(|due| due.since(now(skipped)));
        let wait = due.unwrap_or(ONE);
        if connection.is_none() || !agent.is_attached() && incoming.is_empty() && wait < ONE {
            // It waits to dial again, unless the dialling itself takes its time.
            let soon = Duration::from_millis(if connection.is_none() { 0 } else { 50 });
            match tokio::time::timeout(soon, incoming.recv()).await {
                Ok(event) => next = event.unwrap(),
                Err(_) => {
                    skipped += if wait <= Duration::from_secs(5) { wait } else { soon };
                    next = Event::Tick;
                }
            }
            continue;
        }
        let look = wait.min(Duration::from_millis(100));
        next = match tokio::time::timeout(look, incoming.recv()).await {
            Ok(event) => event.unwrap(),
            Err(_) => Event::Tick,
        };
    }
    told.first = (first.up.get(), first.down.get());
    told
}

/// Builds one request for each of these cuts, each with a worker and a builder of
/// its own; answers the size of the largest conversation that was not cut.
async fn conversations(cuts: Vec<Option<(Way, usize)>>) -> (usize, usize) {
    let names: Vec<String> = (0..cuts.len()).map(|place| format!("w{place:05}")).collect();
    let workers: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let builders = names
        .iter()
        .map(|name| {
            let mut builder = builder_with_steps(&name.replace('w', "b"), &[name], 2);
            // Nobody is given up: whoever was cut off comes back.
            builder.grace = ALL;
            builder
        })
        .collect();
    let house = Rc::new(House::open_with(timers(), &workers, builders).await);
    let done: Rc<RefCell<BTreeMap<RequestId, Rc<Cell<bool>>>>> = Rc::default();
    let mut events = house.events.listen();
    let known = done.clone();
    actix_rt::spawn(async move {
        while let Some(event) = events.recv().await {
            if let Change::RequestComplete(row) = &event.change
                && let Some(done) = known.borrow().get(&row.id)
            {
                done.set(true);
            }
        }
    });
    let waiting = Rc::new(RefCell::new(cuts.into_iter().zip(names).collect::<VecDeque<_>>()));
    let largest = Rc::new(Cell::new((0, 0)));
    let lanes = (0..AT_ONCE).map(|_| {
        let (house, done, waiting) = (house.clone(), done.clone(), waiting.clone());
        let largest = largest.clone();
        actix_rt::spawn(async move {
            loop {
                let Some((cut, name)) = waiting.borrow_mut().pop_front() else { return };
                let over = Rc::new(Cell::new(false));
                let request = house.try_submit(&name.replace('w', "b")).await.unwrap();
                done.borrow_mut().insert(request, over.clone());
                let token = house.token(&name).to_owned();
                let work = worker(name.clone(), token, house.greeter.clone(), cut, over);
                let told = tokio::time::timeout(ONE, work).await;
                let told = told.unwrap_or_else(|_| panic!("{name} with {cut:?} hangs"));
                let ran: Vec<u32> = told.ran.values().copied().collect();
                assert_eq!(ran, [1, 1], "{cut:?}: each step ran once: {:?}", told.ran);
                let was_cut = cut.is_some_and(|(way, at)| {
                    at <= if way == Way::Up { told.first.0 } else { told.first.1 }
                });
                if !was_cut {
                    assert_eq!(told.connections, 1, "{cut:?}");
                    let (up, down) = largest.get();
                    largest.set((up.max(told.first.0), down.max(told.first.1)));
                }
            }
        })
    });
    for lane in lanes.collect::<Vec<_>>() {
        lane.await.unwrap();
    }
    let count = |sql: &str| house.number(sql);
    let all = count("SELECT count(*) FROM requests");
    assert_eq!(count("SELECT count(*) FROM requests WHERE state = 2 AND results = 0"), all);
    assert_eq!(count("SELECT count(*) FROM builds WHERE results = 0"), all);
    // The builds' logs are the same, byte for byte, wherever the cut was.
    let logs = house.good_logs();
    assert_eq!(logs.len() as u64, 2 * all);
    for log in logs {
        let own = |line: &&[u8]| line.starts_with(b"$ ") || line.starts_with(b"program ");
        let lines = log.split_inclusive(|byte| *byte == b'\n').filter(|line| !own(line));
        let written: Vec<u8> = lines.flatten().copied().collect();
        let expected: Vec<u8> = PIECES.iter().flat_map(|(_, bytes)| *bytes).copied().collect();
        assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(&expected));
        assert_eq!(written, expected);
    }
    Rc::try_unwrap(house).ok().unwrap().close();
    largest.get()
}

/// How long the conversation is, with some room: numbers grow.
async fn length() -> (usize, usize) {
    let (up, down) = conversations(vec![None]).await;
    assert!(up > 500 && down > 500, "{up} up, {down} down");
    (up + 24, down + 24)
}

fn at_every_byte(way: Way) {
    story_within(ALL, move || async move {
        let (up, down) = length().await;
        let end = if way == Way::Up { up } else { down };
        let cuts: Vec<_> = (0..end).map(|at| Some((way, at))).collect();
        let begun = Instant::now();
        let count = cuts.len();
        conversations(cuts).await;
        println!("{count} cuts in {:?}", begun.elapsed());
    });
}

#[test]
fn fr01_i3_i9_cut_at_every_byte_that_the_worker_sends() {
    at_every_byte(Way::Up);
}

#[test]
fn fr01_i3_i9_cut_at_every_byte_that_the_master_sends() {
    at_every_byte(Way::Down);
}
