//! The sockets of the load process: connects each worker, carries frames
//! between its connection and its agent, and comes back after a loss.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use botmaster::protocol::json_v1::{MAX_LINE, decode_master, encode_worker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::agent::{Agent, Close, Effects};
use super::exec_log::ExecLog;
use super::text::Text;

/// Workers that may be between connecting and being attached: more would only
/// queue up in the kernel and time out there.
const ATTACHING_AT_ONCE: usize = 512;

/// How long connecting, and sending what is to be sent, may take.
const SOCKET_LIMIT: Duration = Duration::from_secs(30);

/// First and longest wait before another try.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How many lines for people all workers together may write.
const NOTES: u32 = 200;

/// What all workers of the process share.
pub struct Fleet {
    master: String,
    exec_log: ExecLog,
    text: Rc<Text>,
    begin: Instant,
    instance: String,
    attaching: Semaphore,
    notes_left: Cell<u32>,
}

impl Fleet {
    /// A fleet for one master. `text` is what `bench-log` writes.
    #[must_use]
    pub fn new(master: String, exec_log: ExecLog, text: Text) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            master,
            exec_log,
            text: Rc::new(text),
            begin: Instant::now(),
            instance: format!("load-{}-{}", std::process::id(), now.as_nanos()),
            attaching: Semaphore::new(ATTACHING_AT_ONCE),
            notes_left: Cell::new(NOTES),
        }
    }

    fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    fn note(&self, name: &str, text: &str) {
        if self.notes_left.get() > 0 {
            self.notes_left.set(self.notes_left.get() - 1);
            eprintln!("{name}: {text}");
        }
    }
}

/// Runs one worker until it is sent away.
pub async fn run_worker(fleet: Rc<Fleet>, name: String, token: String) {
    let mut agent = Agent::new(&name, token, fleet.instance.clone(), Rc::clone(&fleet.text));
    let mut wait = BACK_OFF.0;
    loop {
        let end = connect_and_talk(&fleet, &name, &mut agent).await;
        if agent.is_attached() {
            wait = BACK_OFF.0;
        }
        agent.disconnected();
        let after = match end {
            Ok(Close::Stop(reason)) => {
                fleet.note(&name, &reason);
                return;
            }
            Ok(Close::Retry(after)) => after.max(wait),
            Err(problem) => {
                fleet.note(&name, &problem);
                wait
            }
        };
        wait = (wait * 2).min(BACK_OFF.1);
        stay_away(&fleet, &name, &mut agent, after).await;
    }
}

/// Waits before the next try; jobs that end meanwhile are recorded on time.
async fn stay_away(fleet: &Fleet, name: &str, agent: &mut Agent, how_long: Duration) {
    // A few percent by name, so that a fleet does not come back in one moment.
    let spread = u32::from(name.bytes().fold(0u8, |sum, byte| sum.wrapping_mul(31) ^ byte));
    let end = fleet.now() + how_long + how_long * spread / 1024;
    while fleet.now() < end {
        let next = agent.next_deadline().map_or(end, |deadline| deadline.min(end));
        sleep_until(fleet.begin + next).await;
        let mut effects = Effects::default();
        agent.on_time(fleet.now(), &mut effects);
        record(fleet, &effects);
    }
}

async fn connect_and_talk(fleet: &Fleet, name: &str, agent: &mut Agent) -> Result<Close, String> {
    let permit = fleet.attaching.acquire().await.map_err(|error| error.to_string())?;
    let mut stream = timeout(SOCKET_LIMIT, TcpStream::connect(&fleet.master))
        .await
        .map_err(|_| "connecting took too long".to_owned())?
        .map_err(|error| format!("cannot connect to {}: {error}", fleet.master))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    talk(fleet, name, agent, &mut stream, permit).await
}

async fn talk(
    fleet: &Fleet,
    name: &str,
    agent: &mut Agent,
    stream: &mut TcpStream,
    permit: SemaphorePermit<'_>,
) -> Result<Close, String> {
    let mut permit = Some(permit);
    let mut incoming: Vec<u8> = Vec::new();
    let mut effects = Effects::default();
    agent.connected(fleet.now(), &mut effects);
    loop {
        record(fleet, &effects);
        if let Some(note) = &effects.note {
            fleet.note(name, note);
        }
        send(stream, &effects).await?;
        if let Some(close) = effects.close.take() {
            return Ok(close);
        }
        if agent.is_attached() {
            // Whoever waits for its turn to attach may go on.
            drop(permit.take());
        }
        effects = Effects::default();
        // Without a deadline of its own the agent is not connected; the limit
        // only keeps this wait from being an endless one.
        let deadline = agent.next_deadline().unwrap_or(fleet.now() + SOCKET_LIMIT);
        match timeout_at(fleet.begin + deadline, stream.read_buf(&mut incoming)).await {
            Err(_) => agent.on_time(fleet.now(), &mut effects),
            Ok(Err(error)) => return Err(format!("the connection broke: {error}")),
            Ok(Ok(0)) => return Ok(Close::Retry(Duration::ZERO)),
            Ok(Ok(_)) => take_lines(fleet, agent, &mut incoming, &mut effects)?,
        }
    }
}

/// Hands every complete line to the agent and keeps the rest.
fn take_lines(
    fleet: &Fleet,
    agent: &mut Agent,
    incoming: &mut Vec<u8>,
    effects: &mut Effects,
) -> Result<(), String> {
    let mut used = 0;
    for line in incoming.split_inclusive(|byte| *byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\n") else { break };
        used += line.len() + 1;
        match decode_master(line) {
            Ok(frame) => agent.on_frame(fleet.now(), frame, effects),
            Err(error) if error.is_fatal() => return Err(format!("the master sent a {error}")),
            Err(error) => effects.note = Some(error.to_string()),
        }
    }
    incoming.drain(..used);
    if incoming.len() > MAX_LINE {
        return Err(format!("the master sent a line longer than {MAX_LINE} bytes"));
    }
    Ok(())
}

async fn send(stream: &mut TcpStream, effects: &Effects) -> Result<(), String> {
    if effects.frames.is_empty() {
        return Ok(());
    }
    let mut bytes = Vec::new();
    for frame in &effects.frames {
        encode_worker(frame, &mut bytes);
    }
    timeout(SOCKET_LIMIT, stream.write_all(&bytes))
        .await
        .map_err(|_| "the master does not take what is sent".to_owned())?
        .map_err(|error| format!("the connection broke: {error}"))
}

fn record(fleet: &Fleet, effects: &Effects) {
    for (word, token) in &effects.records {
        fleet.exec_log.record(word, token);
    }
}
