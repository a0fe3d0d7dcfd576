//! Running many inputs, keeping those that show something new, and telling
//! which one went wrong.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use botmaster::core::rng::Rng;
use nix::time::{ClockId, clock_gettime};

use crate::inputs::mutated;

/// How long one input may keep the processor busy.
pub const INPUT_LIMIT: Duration = Duration::from_secs(1);
/// How long it may take altogether before the run is given up as hanging.
const HANG: Duration = Duration::from_secs(20);
/// How long new inputs are made when nothing else is asked for.
const USUAL: Duration = Duration::from_secs(2);
/// The most that the process may hold, in MiB.
const MEMORY: u64 = 400;
/// Inputs that are kept for mutation, at most.
const POOL: usize = 4096;

/// What an input showed: whatever tells one behaviour from another.
pub type Features = BTreeSet<u64>;

/// How long new inputs are made: `FUZZ_SECONDS`.
pub fn span() -> Duration {
    std::env::var("FUZZ_SECONDS").map_or(USUAL, |text| {
        Duration::from_secs_f64(text.parse().expect("FUZZ_SECONDS: a number"))
    })
}

/// The first seed: `FUZZ_SEED`, or another one each time.
pub fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    std::env::var("FUZZ_SEED")
        .map_or(now.as_nanos() as u64, |text| text.parse().expect("FUZZ_SEED: a number"))
}

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target)
}

/// What is kept for a target.
pub fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut kept: Vec<(String, Vec<u8>)> = fs::read_dir(folder(target))
        .into_iter()
        .flatten()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap())
        })
        .collect();
    kept.sort();
    kept
}

/// Keeps an input that went wrong; answers with its file.
pub fn keep(target: &str, input: &[u8]) -> String {
    let name = format!("found-{:08x}", crc32fast::hash(input));
    fs::create_dir_all(folder(target)).unwrap();
    fs::write(folder(target).join(&name), input).unwrap();
    format!("tests/fuzz/corpus/{target}/{name}")
}

/// With `FUZZ_KEEP=N` keeps the N shortest inputs that showed something new, so
/// that later runs begin where this one ended.
pub fn keep_best(target: &str, pool: &[Vec<u8>]) {
    let Ok(count) = std::env::var("FUZZ_KEEP") else { return };
    let mut shortest: Vec<&Vec<u8>> = pool.iter().collect();
    shortest.sort_by_key(|input| input.len());
    fs::create_dir_all(folder(target)).unwrap();
    for input in shortest.into_iter().take(count.parse().expect("FUZZ_KEEP: a number")) {
        fs::write(folder(target).join(format!("new-{:08x}", crc32fast::hash(input))), input)
            .unwrap();
    }
}

/// Processor time of this thread so far.
pub fn busy() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap()
}

/// What the process holds now, in MiB.
pub fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Ends the process when one input takes much too long; nobody else could tell
/// which one it was.
#[derive(Clone)]
pub struct Watch(Arc<Mutex<Option<Begun>>>);

/// Since when, who, and with what.
type Begun = (Instant, &'static str, Vec<u8>);

impl Watch {
    pub fn new() -> Self {
        let watch = Self(Arc::default());
        let seen = watch.clone();
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(500));
                let now = seen.0.lock().unwrap().clone();
                if let Some((begun, target, input)) = now
                    && begun.elapsed() > HANG
                {
                    eprintln!("{target} hangs with {}", keep(target, &input));
                    std::process::exit(101);
                }
            }
        });
        watch
    }

    pub fn begin(&self, target: &'static str, input: &[u8]) {
        *self.0.lock().unwrap() = Some((Instant::now(), target, input.to_vec()));
    }

    pub fn end(&self) {
        *self.0.lock().unwrap() = None;
    }
}

/// Plays the corpus, then makes new inputs out of what showed something new. A
/// panic of `play` is told with the input that caused it.
pub fn run(
    target: &'static str,
    first: Vec<Vec<u8>>,
    mut play: impl FnMut(&[u8]) -> Features + std::panic::UnwindSafe,
) {
    let seed = seed();
    println!("{target}: FUZZ_SEED={seed}");
    let mut rng = Rng::seeded(seed);
    let watch = Watch::new();
    let mut known = Features::new();
    let mut pool: Vec<Vec<u8>> = Vec::new();
    let mut played = 0_u64;
    let mut once = |input: Vec<u8>, pool: &mut Vec<Vec<u8>>| {
        watch.begin(target, &input);
        let before = busy();
        let shown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| play(&input)));
        let took = busy() - before;
        watch.end();
        let shown = match shown {
            Ok(shown) => shown,
            Err(panic) => {
                eprintln!("{target} fails with {}", keep(target, &input));
                std::panic::resume_unwind(panic);
            }
        };
        assert!(took < INPUT_LIMIT, "{took:?} for {}", keep(target, &input));
        played += 1;
        if played.is_multiple_of(4096) {
            assert!(memory() < MEMORY, "{} MiB after {}", memory(), keep(target, &input));
        }
        let new = shown.iter().any(|feature| !known.contains(feature));
        known.extend(shown);
        if new && pool.len() < POOL {
            pool.push(input);
        }
    };
    for input in corpus(target).into_iter().map(|(_, input)| input).chain(first) {
        once(input, &mut pool);
    }
    let end = Instant::now() + span();
    while Instant::now() < end {
        let input = mutated(&pool, &mut rng);
        once(input, &mut pool);
    }
    println!(
        "{target}: {played} inputs, {} behaviours, {} kept in memory, {} MiB",
        known.len(),
        pool.len(),
        memory()
    );
    assert!(played > 100, "hardly anything was played");
    keep_best(target, &pool);
}
