//! The provider of worker programs on this machine, with real processes: each
//! is ended by its number, whatever becomes of the story.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use botmaster::core::ids::*;
use botmaster::core::instance::{Failure, Found};
use botmaster::core::values::{LatentConfig, ProcessOptions, Provider as Kind};
use botmaster::provisioning::process::{ProcessProvider, ProcessSetup};
use botmaster::provisioning::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::kit::{is_alive, until};

const LIMIT: Duration = Duration::from_secs(20);

/// A folder in which instances are made that look for a master in vain.
struct Yard {
    dir: tempfile::TempDir,
    program: PathBuf,
}

impl Yard {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "a-token-that-nobody-checks-here\n").unwrap();
        Self { dir, program: env!("CARGO_BIN_EXE_botmaster").into() }
    }

    /// As a master has it. Another one is as after a restart of the master.
    fn provider(&self) -> ProcessProvider {
        ProcessProvider::new(ProcessSetup {
            program: self.program.clone(),
            folder: self.dir.path().join("instances"),
            master: ([127, 0, 0, 1], 1).into(),
            kill_time: Duration::from_millis(500),
        })
    }

    fn order(&self, n: u64) -> CreateOrder {
        CreateOrder {
            tag: tag(n),
            worker: "cloud".into(),
            max_builds: 1,
            latent: LatentConfig {
                provider: Kind::Process(ProcessOptions {
                    dir: self.dir.path().join(format!("work-{n}")),
                    token_file: self.dir.path().join("token"),
                    env: [("COLOUR".to_owned(), "green".to_owned())].into(),
                }),
                substantiate_timeout: LIMIT,
                idle_timeout: LIMIT,
            },
        }
    }

    fn record(&self, n: u64) -> PathBuf {
        self.dir.path().join(format!("instances/records/{}/record.json", tag(n)))
    }

    async fn make(&self, provider: &ProcessProvider, n: u64) -> i32 {
        let made = provider.create(self.order(n)).await.unwrap();
        let pid: i32 = made.id.parse().unwrap();
        assert_eq!(made.details, format!("process {pid}"));
        pid
    }
}

impl Drop for Yard {
    /// What a story that failed left.
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.dir.path().join("instances/records"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let text = std::fs::read_to_string(entry.path().join("record.json"));
            let record: serde_json::Value =
                serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default();
            let pid = record["process"]["pid"].as_i64().unwrap_or(0) as i32;
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
            if pid > 1 && line.is_ok_and(|line| line.contains("own-session")) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

/// Other stories run beside this one, and a provider finds by its tag whatever
/// the machine runs: a tag is no other story's.
fn tag(n: u64) -> InstanceTag {
    InstanceTag::new(WorkerId(1), (u64::from(std::process::id()) << 8) + n)
}

/// A process of the story's own.
struct Sleeper(Child);

impl Sleeper {
    fn start(variable: Option<String>) -> Self {
        let mut command = Command::new("sleep");
        command.arg("300");
        if let Some(tag) = variable {
            command.env("BOTMASTER_INSTANCE", tag);
        }
        Self(command.spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id().try_into().unwrap()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn started(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap()
}

fn in_its_session(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let session = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(3));
    session == Some(pid.to_string().as_str())
}

#[tokio::test]
async fn fx10_an_instance_that_is_destroyed_before_it_is_made_never_comes() {
    let yard = Yard::new();
    let provider = yard.provider();
    let making = provider.create(yard.order(1));
    provider.destroy(tag(1), None).await.unwrap();
    let told = making.await;
    assert!(matches!(&told, Err(Failure::Unknown(_))), "{told:?}");
    assert_eq!(provider.find().await.unwrap(), []);
    yard.make(&provider, 1).await;
    provider.destroy(tag(1), None).await.unwrap();
    assert_eq!(provider.find().await.unwrap(), []);
}

#[tokio::test]
async fn a_process_instance_is_made_found_and_destroyed() {
    let yard = Yard::new();
    let provider = yard.provider();
    let pid = yard.make(&provider, 1).await;
    until("it leaves our session", || in_its_session(pid).then_some(()));
    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(String::from_utf8_lossy(&environ).contains("COLOUR=green"));
    let found = provider.find().await.unwrap();
    assert_eq!(found, [Found { tag: tag(1), id: pid.to_string(), alive: true }]);
    provider.destroy(tag(1), None).await.unwrap();
    assert!(!is_alive(pid) && !yard.record(1).exists());
    assert_eq!(provider.find().await.unwrap(), []);
    provider.destroy(tag(1), None).await.expect("one that is not there is gone");
}

#[tokio::test]
async fn fx09_the_next_master_finds_instances_of_a_killed_one() {
    let yard = Yard::new();
    let pid = yard.make(&yard.provider(), 1).await;
    let next = yard.provider();
    assert!(next.find().await.unwrap()[0].alive);
    // Killed before it could note the number: it is found by its tag.
    let text = std::fs::read_to_string(yard.record(1)).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    record["process"] = serde_json::Value::Null;
    std::fs::write(yard.record(1), record.to_string()).unwrap();
    let found = yard.provider().find().await.unwrap();
    assert_eq!(found, [Found { tag: tag(1), id: pid.to_string(), alive: true }]);
    next.destroy(tag(1), None).await.unwrap();
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn fx09_a_process_that_only_has_the_number_is_never_killed() {
    let yard = Yard::new();
    let stranger = Sleeper::start(None);
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let record = |start: u64, boot: &str| {
        serde_json::json!({
            "tag": tag(1).as_str(),
            "worker": "cloud",
            "process": { "pid": stranger.pid(), "start": start, "boot": boot.trim() },
        })
    };
    let start = started(stranger.pid());
    for (start, boot) in [(start - 1, boot.as_str()), (start, "another boot")] {
        std::fs::create_dir_all(yard.record(1).parent().unwrap()).unwrap();
        std::fs::write(yard.record(1), record(start, boot).to_string()).unwrap();
        let provider = yard.provider();
        assert!(!provider.find().await.unwrap()[0].alive);
        provider.destroy(tag(1), None).await.unwrap();
        assert!(is_alive(stranger.pid()), "a stranger was killed");
        assert!(!yard.record(1).exists());
    }
}

#[tokio::test]
async fn an_instance_that_does_not_react_is_killed_with_all_that_is_its() {
    let yard = Yard::new();
    let provider = yard.provider();
    let pid = yard.make(&provider, 1).await;
    until("it leaves our session", || in_its_session(pid).then_some(()));
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    let mut child = Sleeper::start(Some(tag(1).to_string()));
    let other = Sleeper::start(Some(tag(2).to_string()));
    let waited = std::thread::spawn(move || {
        let status = child.0.wait().unwrap();
        (child, status)
    });
    let begun = Instant::now();
    provider.destroy(tag(1), None).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(500), "it had time to end by itself");
    assert!(!is_alive(pid));
    assert!(!waited.join().unwrap().1.success(), "what it left behind went with it");
    assert!(is_alive(other.pid()), "others' did not");
}

#[tokio::test]
async fn fx03_the_death_of_an_instance_is_told_with_its_last_words() {
    let yard = Yard::new();
    let provider = yard.provider();
    let pid = yard.make(&provider, 1).await;
    let died = provider.died(tag(1), pid.to_string());
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    // Another who looks sees the death first, and takes the words from nobody.
    let deadline = Instant::now() + LIMIT;
    while provider.find().await.unwrap()[0].alive {
        assert!(Instant::now() < deadline, "a killed process lives");
    }
    let how = tokio::time::timeout(LIMIT, died).await.unwrap();
    assert!(how.starts_with("signal: 9"), "{how}");
    provider.destroy(tag(1), None).await.unwrap();
    // One that another process started is not ours to wait for.
    let pid = yard.make(&yard.provider(), 2).await;
    let next = yard.provider();
    let died = next.died(tag(2), pid.to_string());
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let how = tokio::time::timeout(LIMIT, died).await.unwrap();
    assert!(how.starts_with("it ended"), "{how}");
    next.destroy(tag(2), None).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_right_is_a_permanent_failure() {
    let mut yard = Yard::new();
    std::fs::remove_file(yard.dir.path().join("token")).unwrap();
    let failed = yard.provider().create(yard.order(1)).await.unwrap_err();
    let Failure::Permanent(text) = &failed else { panic!("{failed:?}") };
    assert!(text.contains("`botmaster token cloud` makes it"), "{text}");
    std::fs::write(yard.dir.path().join("token"), "t\n").unwrap();
    let mut order = yard.order(1);
    let Kind::Process(options) = &mut order.latent.provider;
    options.dir = yard.dir.path().join("token/below-a-file");
    let failed = yard.provider().create(order).await.unwrap_err();
    assert!(matches!(failed, Failure::Permanent(_)), "{failed:?}");
    assert!(!yard.record(1).exists(), "nothing was made, and nothing is remembered");
    yard.program = yard.dir.path().join("no-such-program");
    let failed = yard.provider().create(yard.order(1)).await.unwrap_err();
    assert!(matches!(failed, Failure::Transient(_)), "it may be being replaced: {failed:?}");
    assert!(!yard.record(1).exists());
}

/// A provider that does as it is told.
#[derive(Clone, Copy)]
enum Bad {
    Hangs,
    Panics,
    Blocks,
}

impl Provider for Bad {
    fn create(&self, _: CreateOrder) -> Call<Result<Created, Failure>> {
        match self {
            Self::Hangs => Box::pin(std::future::pending()),
            Self::Panics => panic!("before it answers"),
            Self::Blocks => Box::pin(async {
                std::thread::sleep(Duration::from_secs(3));
                Err(Failure::Transient("late".into()))
            }),
        }
    }

    fn find(&self) -> Call<Result<Vec<Found>, String>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn destroy(&self, _: InstanceTag, _: Option<String>) -> Call<Result<(), String>> {
        match self {
            Self::Hangs => Box::pin(std::future::pending()),
            Self::Panics | Self::Blocks => Box::pin(async { panic!("while it answers") }),
        }
    }

    fn died(&self, _: InstanceTag, _: String) -> Call<String> {
        Box::pin(std::future::pending())
    }
}

#[test]
fn fx01_a_provider_that_hangs_panics_or_blocks_is_answered_for_in_time() {
    let yard = Yard::new();
    let short = Duration::from_millis(200);
    for (bad, limit, wanted) in [
        (Bad::Hangs, short, "did not answer in time"),
        (Bad::Panics, LIMIT, "panicked: before it answers"),
        (Bad::Blocks, short, "did not answer in time"),
    ] {
        let limits = Limits { destroy: Duration::from_millis(200), ..Limits::default() };
        let desk = Provisioner::new(Arc::new(bad), limits);
        let (tell, told) = mpsc::channel();
        let begun = Instant::now();
        desk.create(yard.order(1), limit, move |made| {
            tell.send(made).unwrap();
        });
        let made = told.recv_timeout(LIMIT).unwrap();
        assert!(matches!(&made, Err(Failure::Unknown(text)) if text.contains(wanted)), "{made:?}");
        assert!(begun.elapsed() < Duration::from_secs(2));
        let (tell, told) = mpsc::channel();
        desk.destroy(tag(1), None, move |ended| tell.send(ended).unwrap());
        assert!(told.recv_timeout(LIMIT).unwrap().is_err());
        // Fault row FX11: nobody waits for it.
        let begun = Instant::now();
        drop(desk);
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
}

#[test]
fn a_master_without_a_provider_says_so() {
    let desk = Provisioner::none();
    let (tell, told) = mpsc::channel();
    desk.create(Yard::new().order(1), LIMIT, move |made| tell.send(made).unwrap());
    let made = told.recv_timeout(LIMIT).unwrap();
    assert!(matches!(made, Err(Failure::Permanent(_))), "{made:?}");
    let (tell, told) = mpsc::channel();
    desk.find(move |found| tell.send(found).unwrap());
    assert_eq!(told.recv_timeout(LIMIT).unwrap(), []);
}
