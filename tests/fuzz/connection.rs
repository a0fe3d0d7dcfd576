//! A real master's connections and actors, and workers gone mad: whatever they
//! say, no actor panics, the answers are frames of the protocol, and an honest
//! worker and its build notice nothing.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use botmaster::core::ids::*;
use botmaster::core::rng::Rng;
use botmaster::protocol::json_v1::{MasterFrame, ResumeAction, decode_master};
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf};
use tokio::time::timeout;

use crate::house::{House, builder, story_within, timers};
use crate::inputs::{golden, mutated};
use crate::robot::{Robot, Say};
use crate::run::{Features, INPUT_LIMIT, Watch, busy, corpus, keep, keep_best, memory, seed, span};

const TARGET: &str = "connection";
/// Workers that are mad in turn: what one has spoiled for itself, such as its
/// builder's trust, does not keep the others from being tried.
const MAD: usize = 200;
/// Lines of an input that are played.
const LINES: usize = 60;
/// Inputs that are played at the same time: most of the time each waits.
const AT_ONCE: usize = 8;
/// How long an answer is waited for when the next line needs it.
const PATIENCE: Duration = Duration::from_millis(25);
/// What the process may hold beyond the beginning, in MiB.
const GROWTH: u64 = 200;

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// What the mad worker has heard.
#[derive(Default)]
struct Heard {
    ping: Option<PingToken>,
    build: Option<(BuildId, Epoch)>,
    command: Option<CommandId>,
    features: Features,
    last: u64,
    closed: bool,
}

impl Heard {
    fn frame(&mut self, frame: &MasterFrame, honest: BuildId) {
        let (kind, of) = match frame {
            MasterFrame::Ping { id } => {
                self.ping = Some(*id);
                ("ping".to_owned(), None)
            }
            MasterFrame::StartBuild { build, epoch, .. } => {
                self.build = Some((*build, *epoch));
                ("start".to_owned(), Some(*build))
            }
            MasterFrame::StartCommand { build, command, .. } => {
                self.command = Some(command.clone());
                ("command".to_owned(), Some(*build))
            }
            MasterFrame::Error(error) => (format!("error {}", error.code), None),
            MasterFrame::Rejected { code, .. } => (format!("rejected {code}"), None),
            // Whoever claims to have a build that is not its own must end it.
            MasterFrame::Resume(resume) => {
                let of = (resume.r#do == ResumeAction::Continue).then_some(resume.build);
                (format!("resume {:?}", resume.r#do), of)
            }
            MasterFrame::LogConfirm { build, .. }
            | MasterFrame::LogAgain { build, .. }
            | MasterFrame::Interrupt { build, .. } => (frame.kind().to_owned(), Some(*build)),
            _ => (frame.kind().to_owned(), None),
        };
        assert_ne!(of, Some(honest), "it is spoken to about another's build: {frame:?}");
        let now = u64::from(crc32fast::hash(kind.as_bytes()));
        self.features.insert(self.last << 32 | now);
        self.last = now;
    }

    /// Reads what has come, waiting until `enough` or for as long as `limit`.
    async fn listen(
        &mut self,
        from: &mut BufReader<ReadHalf<DuplexStream>>,
        limit: Duration,
        honest: BuildId,
        enough: impl Fn(&Self) -> bool,
    ) {
        let end = tokio::time::Instant::now() + limit;
        while !self.closed && !enough(self) {
            let mut line = Vec::new();
            match tokio::time::timeout_at(end, from.read_until(b'\n', &mut line)).await {
                Err(_) => return,
                Ok(Ok(count)) if count > 0 && line.ends_with(b"\n") => {
                    let frame = decode_master(&line[..line.len() - 1]);
                    self.frame(&frame.expect("an answer is a frame"), honest);
                }
                Ok(_) => self.closed = true,
            }
        }
    }
}

/// Puts in what only the conversation tells: `@PING@` and so on.
fn filled(line: &[u8], heard: &Heard, known: &[(&str, String)]) -> Vec<u8> {
    if !line.contains(&b'@') {
        return line.to_vec();
    }
    let mut text = String::from_utf8_lossy(line).into_owned();
    let (build, epoch) = heard.build.unwrap_or((BuildId(0), Epoch(0)));
    let number = |id: Option<u64>| id.unwrap_or(0).to_string();
    text = text
        .replace("@PING@", &number(heard.ping.map(|ping| ping.0)))
        .replace("@BUILD@", &build.0.to_string())
        .replace("@EPOCH@", &epoch.0.to_string())
        .replace("@COMMAND@", heard.command.as_ref().map_or("c-0-0", |command| command.as_str()));
    for (name, value) in known {
        text = text.replace(name, value);
    }
    text.into_bytes()
}

struct Yard {
    house: House,
    honest: Robot,
    build: BuildId,
}

impl Yard {
    async fn open() -> Self {
        let names: Vec<String> = (0..MAD).map(|at| format!("m{at}")).collect();
        let mut workers = vec![("honest", 1)];
        workers.extend(names.iter().map(|name| (name.as_str(), 2)));
        let mut builders = vec![builder("calm", &["honest"])];
        builders.extend(names.iter().map(|name| builder(&format!("b-{name}"), &[name])));
        let house = House::open_with(timers(), &workers, builders).await;
        let honest = house.robot("honest");
        honest.hold(Say::Finish);
        house.submit("calm", 1).await;
        house.until("the honest one builds", || honest.held_back(Say::Finish) == 1).await;
        let build = BuildId(house.number("SELECT id FROM builds"));
        for name in &names {
            house.submit(&format!("b-{name}"), 3).await;
        }
        Self { house, honest, build }
    }

    async fn play(&self, turn: usize, input: &[u8]) -> Features {
        let name = format!("m{}", turn % MAD);
        let known = [
            ("@NAME@", name.clone()),
            ("@TOKEN@", self.house.token(&name).to_owned()),
            ("@BUILDER@", format!("b-{name}")),
            ("@HONEST@", self.build.0.to_string()),
        ];
        let (mine, theirs) = tokio::io::duplex(256 * 1024);
        self.house.greeter.greet(theirs, "pipe".into());
        let (from, mut to) = tokio::io::split(mine);
        let (mut from, mut heard) = (BufReader::new(from), Heard::default());
        for line in input.split_inclusive(|byte| *byte == b'\n').take(LINES) {
            let has = |name: &str| line.windows(name.len()).any(|part| part == name.as_bytes());
            let honest = self.build;
            if has("@PING@") {
                heard.listen(&mut from, PATIENCE, honest, |heard| heard.ping.is_some()).await;
            } else if has("@COMMAND@") {
                heard.listen(&mut from, PATIENCE, honest, |heard| heard.command.is_some()).await;
            } else if has("@BUILD@") {
                heard.listen(&mut from, PATIENCE, honest, |heard| heard.build.is_some()).await;
            } else if has("\"inventory\"") {
                heard.listen(&mut from, PATIENCE, honest, |heard| heard.last != 0).await;
            }
            let bytes = filled(line, &heard, &known);
            // A master that has hung up takes no more.
            let written = timeout(PATIENCE * 4, to.write_all(&bytes)).await;
            if heard.closed || !matches!(written, Ok(Ok(()))) {
                break;
            }
        }
        heard.listen(&mut from, Duration::from_millis(3), self.build, |_| false).await;
        for (kind, count) in self.house.board.all().ignored {
            // Orders of magnitude: each new one is news.
            let size = u64::BITS - count.leading_zeros();
            heard
                .features
                .insert(u64::from(crc32fast::hash(kind.as_bytes())) << 8 | u64::from(size));
        }
        self.all_is_well();
        heard.features
    }

    /// No actor has panicked, and the honest worker and its build are as before.
    #[track_caller]
    fn all_is_well(&self) {
        assert_eq!(PANICS.load(Ordering::Relaxed), 0, "an actor panicked");
        let view = self.house.board.worker(&"honest".into()).unwrap();
        assert!(view.connected && view.used == 1, "{view:?}");
        assert_eq!(view.incarnation, Incarnation(1));
        assert_eq!(self.honest.held_back(Say::Finish), 1);
        assert_eq!(self.honest.complaints(), Vec::<String>::new());
    }

    /// The honest worker's build ends as if nothing had been.
    async fn close(self) {
        self.honest.release(Say::Finish);
        let done = "SELECT count(*) FROM builds WHERE id = (SELECT min(id) FROM builds) AND \
                    results = 0";
        self.house.until("the honest build ends well", || self.house.number(done) == 1).await;
        assert_eq!(self.honest.ran().len(), 1);
        self.house.close();
    }
}

/// What an honest worker would say, and some that it would not.
fn conversations() -> Vec<Vec<u8>> {
    let attach = r#"{"t":"attach","proto":[1],"name":"@NAME@","instance":"i","token":"@TOKEN@","slots":2,"caps":["shell/1"]}"#;
    let inventory = r#"{"t":"inventory","builds":[],"more":false}"#;
    let ready = r#"{"t":"builder_ready","builder":"@BUILDER@"}"#;
    let pong = r#"{"t":"pong","id":@PING@}"#;
    let accepted = r#"{"t":"build_accepted","build":@BUILD@,"epoch":@EPOCH@}"#;
    let started = r#"{"t":"command_started","build":@BUILD@,"command":"@COMMAND@"}"#;
    let log = r#"{"t":"log","build":@BUILD@,"command":"@COMMAND@","log":"stdio","ch":"o","offset":0,"text":"hello\n","at":1}"#;
    let raw = "{\"t\":\"log\",\"build\":@BUILD@,\"command\":\"@COMMAND@\",\"log\":\"stdio\",\"ch\":\"o\",\"offset\":0,\"raw\":6,\"at\":1}\nhello";
    let finished = r#"{"t":"command_finished","build":@BUILD@,"command":"@COMMAND@","outcome":{"exit":0},"usage":{"wall_ms":1},"log_end":{"stdio":6}}"#;
    let beat = r#"{"t":"heartbeat","seq":1,"running":[@BUILD@]}"#;
    let all = |lines: &[&str]| format!("{}\n", lines.join("\n")).into_bytes();
    let good = [attach, inventory, ready, pong, accepted, started, log, finished, beat];
    let mut all_of_them = vec![all(&good)];
    for end in 1..good.len() {
        all_of_them.push(all(&good[..end]));
    }
    let as_it_is = [attach, inventory, ready, pong, accepted, started, raw, finished, beat];
    all_of_them.push(all(&as_it_is));
    all_of_them.push(all(&as_it_is[..7]).strip_suffix(b"llo\n").unwrap().to_vec());
    let theirs = [
        r#"{"t":"inventory","builds":[{"build":@HONEST@,"epoch":1,"builder":"calm","command":"c-1-0","state":"running","log_end":{"stdio":0}}]}"#,
        r#"{"t":"command_finished","build":@HONEST@,"command":"c-1-0","outcome":{"exit":1},"log_end":{"stdio":0}}"#,
        r#"{"t":"log","build":@HONEST@,"command":"c-1-0","log":"stdio","ch":"o","offset":0,"text":"x"}"#,
        r#"{"t":"build_accepted","build":@HONEST@,"epoch":9}"#,
        r#"{"t":"abandoned","build":@HONEST@}"#,
        r#"{"t":"refused","build":@HONEST@,"epoch":1,"code":"busy","message":"m"}"#,
        r#"{"t":"command_refused","build":@HONEST@,"command":"c-1-0","code":"stale","message":"m"}"#,
        r#"{"t":"builder_ready","builder":"calm"}"#,
        r#"{"t":"refused","build":@BUILD@,"epoch":@EPOCH@,"code":"disk","message":"m"}"#,
        r#"{"t":"draining","message":"m"}"#,
        r#"{"t":"builder_failed","builder":"@BUILDER@","code":"disk","message":"m"}"#,
    ];
    for line in theirs {
        all_of_them.push(all(&[attach, inventory, line]));
        all_of_them.push(all(&[attach, inventory, ready, pong, line]));
        all_of_them.push(all(&[attach, inventory, ready, pong, accepted, started, line, finished]));
    }
    let golden = golden("worker");
    for line in &golden {
        all_of_them.push([all(&[attach, inventory, ready]), line.clone()].concat());
    }
    all_of_them.push(golden.concat());
    all_of_them.push([all(&[attach]), golden.concat()].concat());
    all_of_them
}

async fn fuzz() {
    let seed = seed();
    println!("{TARGET}: FUZZ_SEED={seed}");
    let mut rng = Rng::seeded(seed);
    let (watch, yard) = (Watch::new(), Yard::open().await);
    let first = corpus(TARGET).into_iter().map(|(_, input)| input).chain(conversations());
    let mut waiting: VecDeque<Vec<u8>> = first.collect();
    let (mut pool, mut known, mut played) = (Vec::new(), Features::new(), 0);
    let (before, mut end) = (memory(), None);
    while end.is_none_or(|end| Instant::now() < end) {
        if waiting.is_empty() && end.is_none() {
            end = Some(Instant::now() + span());
        }
        let batch: Vec<Vec<u8>> = (0..AT_ONCE)
            .map(|_| waiting.pop_front().unwrap_or_else(|| mutated(&pool, &mut rng)))
            .collect();
        // Those that were played together are kept together.
        let together = || batch.iter().map(|input| keep(TARGET, input)).collect::<Vec<_>>();
        watch.begin(TARGET, &batch.concat());
        let processor = busy();
        let playing = batch.iter().enumerate().map(|(at, input)| yard.play(played + at, input));
        let shown = AssertUnwindSafe(join_all(playing)).catch_unwind().await;
        let took = busy() - processor;
        watch.end();
        let shown = match shown {
            Ok(shown) => shown,
            Err(panic) => {
                eprintln!("{TARGET} fails with one of {:?}", together());
                std::panic::resume_unwind(panic);
            }
        };
        let limit = INPUT_LIMIT * u32::try_from(AT_ONCE / 2).unwrap();
        assert!(took < limit, "{took:?} for {:?}", together());
        played += batch.len();
        for (input, shown) in batch.into_iter().zip(shown) {
            let new = shown.iter().any(|feature| !known.contains(feature));
            known.extend(shown);
            if new && pool.len() < 1024 {
                pool.push(input);
            }
        }
    }
    let after = memory();
    println!(
        "{TARGET}: {played} inputs, {} behaviours, {} kept in memory; {before} MiB before, {after} \
         MiB after",
        known.len(),
        pool.len(),
    );
    println!("ignored: {:?}", yard.house.board.all().ignored);
    assert!(after < before + GROWTH, "{before} MiB before, {after} MiB after");
    assert!(played > 50, "hardly anything was played");
    keep_best(TARGET, &pool);
    yard.close().await;
}

#[test]
fn fn16_fn09_i16_a_real_master_stands_whatever_workers_say() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        usual(info);
    }));
    story_within(span() + Duration::from_secs(90), fuzz);
}
