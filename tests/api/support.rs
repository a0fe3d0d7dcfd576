//! The world of these tests.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use actix::prelude::*;
use botmaster::board::Board;
use botmaster::core::builder::Estimate;
use botmaster::core::ids::*;
use botmaster::core::values::{Properties, Property};
use botmaster::core::views::{ActiveBuildView, BigState, BuilderView, WorkerView};
use botmaster::events::Events;
use botmaster::messages::*;
use botmaster::settings::Problem;
use botmaster::store::sqlite::{QUERY_LIMIT, StateReader};
use botmaster::store::{LogRow, StoreError};
use botmaster::web::{LogText, RawPieces, StockUi, WebContext, WebState, serve};
use rusqlite::Connection;
use serde_json::{Value, json};

const SCHEMA: [&str; 8] = [
    include_str!("../../migrations/sqlite/0001_first.sql"),
    include_str!("../../migrations/sqlite/0002_instances.sql"),
    include_str!("../../migrations/sqlite/0003_expectations.sql"),
    include_str!("../../migrations/sqlite/0004_notes.sql"),
    include_str!("../../migrations/sqlite/0005_stop.sql"),
    include_str!("../../migrations/sqlite/0006_leases.sql"),
    include_str!("../../migrations/sqlite/0007_housekeeping.sql"),
    include_str!("../../migrations/sqlite/0008_data_api.sql"),
];

const ROWS: &str = r#"
INSERT INTO builders (id, name, description, tags, configured) VALUES
    (1, 'unit', 'Unit tests', '["linux","fast"]', 1),
    (2, 'slow build', NULL, '["nightly"]', 1),
    (3, 'old', NULL, '[]', 0);
INSERT INTO workers (id, name, configured, connected, info, paused, pause_reason) VALUES
    (1, 'linux-1', 1, 1, '{"host":"h1","version":"0.1"}', 0, NULL),
    (2, 'mac-1', 1, 0, '{}', 1, 'broken disk');
INSERT INTO builder_workers VALUES (1, 0, 1), (2, 0, 1), (2, 1, 2), (3, 0, 2);
INSERT INTO sourcestamps (id, digest, codebase, repository, branch, revision, project,
                          created_at) VALUES
    (1, 'd1', '', 'https://git.example.org/a.git', 'main', NULL, 'demo', 1000000000),
    (2, 'd2', '', '', NULL, 'abc', '', 2000000000);
INSERT INTO buildsets (id, reason, scheduler, submitted_at, complete_at, results, rebuilt_build,
                       sourcestamps, properties, open_requests) VALUES
    (1, 'first', 'force', 1000000000, 1060000000, 0, NULL, '[1]', 'PROPERTIES', 0),
    (2, 'again', 'rebuild', 1100000000, 1160000000, 2, 1, '[1]', 'PROPERTIES', 0),
    (3, 'slow', 'force', 1200000000, NULL, NULL, NULL, '[2]', '{}', 1),
    (4, 'waits', 'force', 1300000000, NULL, NULL, NULL, '[2]', 'PROPERTIES', 1),
    (5, 'claimed', 'force', 1400000000, NULL, NULL, NULL, '[2]', '{}', 1);
INSERT INTO requests (id, buildset_id, builder_id, priority, submitted_at, state, epoch,
                      claimed_at, complete_at, results) VALUES
    (11, 1, 1, 0, 1000000000, 2, 1, 1001000000, 1060000000, 0),
    (12, 2, 1, 0, 1100000000, 2, 1, 1101000000, 1160000000, 2),
    (13, 3, 2, 0, 1200000000, 1, 1, 1201000000, NULL, NULL),
    (14, 4, 2, 5, 1300000000, 0, 0, NULL, NULL, NULL),
    (15, 5, 1, 0, 1400000000, 1, 1, 1401000000, NULL, NULL);
INSERT INTO builds (id, claim, builder_id, number, request_id, worker_id, incarnation, state,
                    started_at, complete_at, results, state_string, factory_digest, properties)
VALUES
    (101, 'a', 1, 1, 11, 1, 1, 2, 1001500000, 1060000000, 0, 'build successful', 'f', 'BUILDPROPS'),
    (102, 'b', 1, 2, 12, 1, 1, 2, 1101000000, 1160000000, 2, 'failed', 'f', '{}'),
    (103, 'c', 2, 1, 13, 1, 1, 1, 1201000000, NULL, NULL, 'building', 'f', '{}'),
    (104, 'd', 1, NULL, 15, 1, 1, 0, 1401000000, NULL, NULL, 'starting', 'f', '{}');
INSERT INTO build_requests VALUES (101, 11, 1), (102, 12, 1), (103, 13, 1), (104, 15, 1);
INSERT INTO notes (id, builder_id, worker_id, text, error, at, ended_at) VALUES
    (1, 1, 1, 'failed connect linux-1', 'no folder', 1000000000, 1000000000),
    (2, 1, 1, 'connect linux-1', NULL, 1000500000, 1000500000),
    (3, 1, NULL, 'idle', NULL, 1000500000, 1000500000),
    (4, 2, 1, 'pinging', NULL, 1001000000, NULL);
INSERT INTO steps (id, build_id, number, name, started_at, complete_at, results, state_string) VALUES
    (1001, 101, 0, 'checkout', 1002000000, 1003000000, 0, 'checked out'),
    (1002, 101, 1, 'test', 1003000000, 1059000000, 0, 'tested'),
    (1003, 103, 0, 'compile', 1202000000, NULL, NULL, 'compiling');
INSERT INTO logs (id, step_id, name, slug, kind, complete, num_lines, length) VALUES
    (5001, 1001, 'stdio', 'stdio', 's', 1, 3, 20),
    (5002, 1002, 'stdio', 'stdio', 's', 1, 1, 5),
    (5003, 1002, 'notes', 'notes', 't', 1, 2, 20),
    (5004, 1002, 'report', 'report', 'h', 1, 1, 20),
    (5005, 1003, 'stdio', 'stdio', 's', 0, 0, 0);
"#;

/// Text of logs, each line with its channel.
#[derive(Default)]
pub struct FakeLogs(Mutex<HashMap<u64, Vec<u8>>>);

impl FakeLogs {
    pub fn set(&self, log: u64, lines: &str) {
        self.0.lock().unwrap().insert(log, lines.as_bytes().to_vec());
    }

    fn all(&self, row: &LogRow) -> Vec<Vec<u8>> {
        let texts = self.0.lock().unwrap();
        let text = texts.get(&row.id.0).cloned().unwrap_or_default();
        text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    }
}

impl LogText for FakeLogs {
    fn lines(
        &self,
        row: &LogRow,
        _inline: Option<&Arc<[u8]>>,
        first: u64,
        limit: Option<u64>,
    ) -> Result<Vec<u8>, StoreError> {
        let first = usize::try_from(first).unwrap();
        let limit = usize::try_from(limit.unwrap_or(1_000_000)).unwrap();
        Ok(self.all(row).into_iter().skip(first).take(limit).flatten().collect())
    }

    fn raw(
        &self,
        row: &LogRow,
        _inline: Option<Arc<[u8]>>,
        from: u64,
    ) -> Result<RawPieces, StoreError> {
        let text: Vec<u8> = self.all(row).into_iter().flat_map(|line| line[1..].to_vec()).collect();
        let rest = text[usize::try_from(from).unwrap().min(text.len())..].to_vec();
        let pieces: Vec<Vec<u8>> = rest.chunks(7).map(<[u8]>::to_vec).collect();
        Ok(Box::new(pieces.into_iter().map(Ok)))
    }

    fn length(&self, row: &LogRow, _inline: Option<&Arc<[u8]>>) -> Result<u64, StoreError> {
        Ok(self.all(row).iter().map(|line| line.len() as u64 - 1).sum())
    }

    fn tail(
        &self,
        row: &LogRow,
        _inline: Option<&Arc<[u8]>>,
        count: u64,
    ) -> Result<Vec<u8>, StoreError> {
        let lines = self.all(row);
        let skip = lines.len().saturating_sub(usize::try_from(count).unwrap());
        Ok(lines.into_iter().skip(skip).flatten().collect())
    }
}

/// What the BotMaster was asked, and what it answers.
#[derive(Default)]
pub struct Asked {
    pub submissions: Vec<Vec<Submission>>,
    pub orders: Vec<String>,
    /// The next answer is this refusal.
    pub refuse: Option<Refusal>,
    pub pong: bool,
    /// Ids of builders, by name.
    pub ids: HashMap<String, u64>,
    pub report: ReloadReport,
}

type SharedAsked = Arc<Mutex<Asked>>;

struct FakeMaster(SharedAsked);

impl Actor for FakeMaster {
    type Context = Context<Self>;
}

impl FakeMaster {
    fn note<T>(&self, text: String, answer: impl FnOnce(&Asked) -> T) -> Result<T, Refusal> {
        let mut asked = self.0.lock().unwrap();
        asked.orders.push(text);
        match asked.refuse.take() {
            Some(refusal) => Err(refusal),
            None => Ok(answer(&asked)),
        }
    }
}

impl Handler<Submit> for FakeMaster {
    type Result = Result<Vec<Submitted>, Refusal>;
    fn handle(&mut self, message: Submit, _: &mut Self::Context) -> Self::Result {
        let mut asked = self.0.lock().unwrap();
        if let Some(refusal) = asked.refuse.take() {
            return Err(refusal);
        }
        asked.submissions.push(message.0.clone());
        let stored = message.0.iter().zip(71..).map(|(one, set)| Submitted {
            buildset: BuildsetId(set),
            requests: one
                .builders
                .iter()
                .map(|name| (BuilderId(asked.ids[name.as_str()]), RequestId(set + 800)))
                .collect(),
        });
        Ok(stored.collect())
    }
}

impl Handler<CancelRequest> for FakeMaster {
    type Result = Result<bool, Refusal>;
    fn handle(&mut self, m: CancelRequest, _: &mut Self::Context) -> Self::Result {
        self.note(format!("cancel {} of {}: {}", m.request, m.builder, m.reason), |_| true)
    }
}

impl Handler<SetPriority> for FakeMaster {
    type Result = Result<bool, Refusal>;
    fn handle(&mut self, m: SetPriority, _: &mut Self::Context) -> Self::Result {
        self.note(format!("priority {} of {}: {}", m.request, m.builder, m.priority), |_| true)
    }
}

impl Handler<StopBuild> for FakeMaster {
    type Result = Result<bool, Refusal>;
    fn handle(&mut self, m: StopBuild, _: &mut Self::Context) -> Self::Result {
        self.note(format!("stop {} of {}: {}", m.build, m.builder, m.reason), |_| true)
    }
}

impl Handler<PingBuilder> for FakeMaster {
    type Result = Result<bool, Refusal>;
    fn handle(&mut self, m: PingBuilder, _: &mut Self::Context) -> Self::Result {
        self.note(format!("ping {}", m.0), |asked| asked.pong)
    }
}

impl Handler<OrderWorker> for FakeMaster {
    type Result = Result<(), Refusal>;
    fn handle(&mut self, m: OrderWorker, _: &mut Self::Context) -> Self::Result {
        self.note(format!("{:?} {}: {}", m.order, m.worker, m.reason), |_| ())
    }
}

impl Handler<Reload> for FakeMaster {
    type Result = Result<ReloadReport, Refusal>;
    fn handle(&mut self, m: Reload, _: &mut Self::Context) -> Self::Result {
        self.note(format!("reload dry={}", m.dry), |asked| asked.report.clone())
    }
}

impl Handler<SetScheduler> for FakeMaster {
    type Result = Result<(), Refusal>;
    fn handle(&mut self, m: SetScheduler, _: &mut Context<Self>) -> Self::Result {
        self.note(format!("scheduler {} {}", m.scheduler, m.enabled), |_| ())
    }
}

impl Handler<RestartBuilder> for FakeMaster {
    type Result = Result<(), Refusal>;
    fn handle(&mut self, m: RestartBuilder, _: &mut Self::Context) -> Self::Result {
        self.note(format!("restart {}", m.0), |_| ())
    }
}

/// A server over a store of its own. It ends with the value.
pub struct World {
    pub address: SocketAddr,
    pub url: String,
    pub asked: SharedAsked,
    pub events: Events,
    pub board: Board,
    pub logs: Arc<FakeLogs>,
    pub db: Connection,
    server: Option<(actix_web::dev::ServerHandle, JoinHandle<()>)>,
    _folder: tempfile::TempDir,
}

fn empty(folder: &Path) -> Connection {
    let db = Connection::open(folder.join("state.sqlite")).unwrap();
    db.pragma_update(None, "journal_mode", "WAL").unwrap();
    for part in SCHEMA {
        db.execute_batch(part).unwrap();
    }
    db
}

fn builder_ids(db: &Connection) -> HashMap<String, u64> {
    let mut ids = db.prepare("SELECT name, id FROM builders").unwrap();
    let pair =
        |row: &rusqlite::Row<'_>| Ok((row.get(0)?, u64::try_from(row.get::<_, i64>(1)?).unwrap()));
    ids.query_map([], pair).unwrap().collect::<Result<_, _>>().unwrap()
}

fn fill(db: &Connection) {
    let property =
        |value: &str, source: &str| Property { value: value.into(), source: source.into() };
    let set: Properties = BTreeMap::from([
        ("owner".into(), property("ann", "Force Build Form")),
        ("suite".into(), property("fast", "Force Build Form")),
    ]);
    let mut build = set.clone();
    build.insert("got_revision".into(), property("abcdef", "checkout"));
    build.insert("branch".into(), property("main", "Build"));
    let rows = ROWS
        .replace("BUILDPROPS", &serde_json::to_string(&build).unwrap())
        .replace("PROPERTIES", &serde_json::to_string(&set).unwrap());
    db.execute_batch(&rows).unwrap();
}

fn shown_board() -> Board {
    let board = Board::default();
    let builds = vec![ActiveBuildView {
        build: Some(BuildId(103)),
        number: Some(BuildNumber(1)),
        worker: "linux-1".into(),
        state: "running",
        requests: vec![RequestId(13)],
        inherited: false,
        away: None,
    }];
    let view = |id, big_state, builds, waiting| BuilderView {
        id: BuilderId(id),
        generation: Generation(1),
        big_state,
        waiting,
        oldest_request_time: None,
        builds,
        workers: BTreeMap::from([("linux-1".into(), "idle")]),
        pauses: BTreeMap::new(),
        max_builds: None,
        expected: Estimate::of(vec![Duration::from_secs(90)]),
        broken: None,
        restarts: 0,
    };
    board.show_builder(&"unit".into(), view(1, BigState::Idle, Vec::new(), 0));
    board.show_builder(&"slow build".into(), view(2, BigState::Building, builds, 1));
    let worker = WorkerView {
        id: WorkerId(1),
        connected: true,
        incarnation: Incarnation(1),
        used: 1,
        max_builds: 2,
        paused: false,
        graceful: false,
        quarantine: None,
        address: Some("127.0.0.1:5".into()),
        clock_skew_ms: None,
        instance: None,
    };
    board.show_worker(&"linux-1".into(), worker);
    board
}

impl World {
    pub fn start() -> Self {
        Self::serving(None)
    }

    /// A server with Buildbot's pages, from this folder.
    pub fn with_pages(folder: &Path) -> Self {
        Self::serving(Some(StockUi::read(folder).unwrap()))
    }

    fn serving(pages: Option<StockUi>) -> Self {
        let world = Self::serving_over(fill, shown_board(), "host:/srv/ci", pages, QUERY_LIMIT);
        world.logs.set(5001, "ocloning\neoops\nhdone <b>\n");
        world.logs.set(5002, "ook\n");
        world.logs.set(5003, "oline one\noline two\n");
        world.logs.set(5004, "o<script>alert(1)</script>\n");
        world.logs.set(5005, "obuilding a\n");
        world
    }

    /// A server over a store with these rows.
    pub fn over(rows: impl FnOnce(&Connection), board: Board, name: &'static str) -> Self {
        Self::serving_over(rows, board, name, None, QUERY_LIMIT)
    }

    /// The same, where a question to the store may take so long.
    pub fn hurried(rows: impl FnOnce(&Connection), limit: Duration) -> Self {
        Self::serving_over(rows, Board::default(), "host:/srv/ci", None, limit)
    }

    fn serving_over(
        rows: impl FnOnce(&Connection),
        board: Board,
        name: &'static str,
        pages: Option<StockUi>,
        limit: Duration,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = empty(folder.path());
        rows(&db);
        let logs = Arc::new(FakeLogs::default());
        let asked = SharedAsked::default();
        asked.lock().unwrap().ids = builder_ids(&db);
        let events = Events::starting_at(1);
        let reader = StateReader::with_limit(folder.path(), limit).unwrap();
        let (sender, receiver) = sync_channel(1);
        let (to, on, up, text) = (asked.clone(), board.clone(), events.clone(), logs.clone());
        let thread = std::thread::spawn(move || {
            actix::System::new().block_on(async move {
                let master = FakeMaster(to).start();
                let handle = BotMasterHandle {
                    submit: master.clone().recipient(),
                    cancel: master.clone().recipient(),
                    priority: master.clone().recipient(),
                    stop: master.clone().recipient(),
                    ping: master.clone().recipient(),
                    order: master.clone().recipient(),
                    reload: master.clone().recipient(),
                    restart: master.clone().recipient(),
                    scheduler: master.recipient(),
                };
                let context = WebContext {
                    handle,
                    reader,
                    logs: text,
                    events: up,
                    board: on,
                    load_settings: Arc::new(|file: &Path| {
                        Err(vec![Problem {
                            file: file.display().to_string(),
                            line: Some(3),
                            key: "builder[0].steps".into(),
                            message: "is empty".into(),
                            fix: "add a step".into(),
                        }])
                    }),
                    title: "Test <CI>".into(),
                    name: name.into(),
                    allowed_origins: Arc::from(["https://*.example.org".to_owned()]),
                    ui: pages.map(Arc::new),
                    state: WebState::cutting_sockets_off_after(Duration::from_secs(1)),
                };
                let (server, address) = serve(context, ([127, 0, 0, 1], 0).into()).unwrap();
                sender.send((address, server.handle())).unwrap();
                server.await.unwrap();
            });
        });
        let (address, handle) = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
        Self {
            address,
            url: format!("http://{address}"),
            asked,
            events,
            board,
            logs,
            db,
            server: Some((handle, thread)),
            _folder: folder,
        }
    }

    /// One request over a connection of its own.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut stream = self.connect();
        let host = self.address.to_string();
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            head += &format!("Host: {host}\r\n");
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).unwrap();
        // A server that refuses early may close before it has read everything.
        let _ = stream.write_all(body.as_bytes());
        let mut stream = BufReader::new(stream);
        if method == "HEAD" {
            let (status, headers) = read_head(&mut stream);
            return Answer { status, headers, body: String::new() };
        }
        Answer::read(stream)
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    pub fn get(&self, path: &str) -> Answer {
        let path = format!("/api/v2/{path}");
        self.ask("GET", &path, &[("Accept", "application/json")], "")
    }

    /// The resources of a list that must be there.
    pub fn list(&self, path: &str) -> Vec<Value> {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        let value = answer.json();
        let kinds: Vec<_> = value.as_object().unwrap().keys().collect();
        assert_eq!(kinds.len(), 2, "{path}: {kinds:?}");
        let list = value.as_object().unwrap().values().find_map(Value::as_array).unwrap();
        list.clone()
    }

    /// One field of all resources of a list.
    pub fn numbers(&self, path: &str, field: &str) -> Vec<i64> {
        self.list(path).iter().map(|row| row[field].as_i64().unwrap()).collect()
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        let path = format!("/api/v2/{path}");
        self.ask("POST", &path, &[("Content-Type", "application/json")], &body.to_string())
    }

    pub fn rpc(&self, path: &str, method: &str, params: Value) -> Answer {
        self.post(path, &json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}))
    }

    /// Runs a command of the client. Answers its status, output and errors.
    pub fn run(&self, words: &[&str]) -> (u8, String, String) {
        run_at(&self.url, words)
    }
}

#[derive(clap::Parser)]
struct Words {
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: botmaster::cli::client::ClientCommand,
}

pub fn run_at(url: &str, words: &[&str]) -> (u8, String, String) {
    use clap::Parser;
    let words = Words::try_parse_from(std::iter::once(&"botmaster").chain(words)).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = botmaster::cli::client::run_to(words.command, url, words.json, &mut out, &mut err);
    (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some((handle, thread)) = self.server.take() {
            // The order is sent at once; the answer need not be awaited.
            drop(handle.stop(false));
            thread.join().unwrap();
        }
    }
}

/// One answer.
pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Answer {
    fn read(mut stream: BufReader<TcpStream>) -> Self {
        let (status, headers) = read_head(&mut stream);
        let mut body = Vec::new();
        if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            while let Some(chunk) = read_chunk(&mut stream) {
                body.extend(chunk);
            }
        } else {
            std::io::Read::read_to_end(&mut stream, &mut body).unwrap();
        }
        // What is compressed is no text.
        let body = String::from_utf8_lossy(&body).into_owned();
        Self { status, headers, body }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }

    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }
}

pub fn read_head(stream: &mut BufReader<TcpStream>) -> (u16, HashMap<String, String>) {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
            None => return (status, headers),
        };
    }
}

/// One chunk of a chunked body; none at its end.
pub fn read_chunk(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    let length = usize::from_str_radix(line.trim_end(), 16).unwrap();
    let mut chunk = vec![0; length + 2];
    std::io::Read::read_exact(stream, &mut chunk).unwrap();
    chunk.truncate(length);
    (length > 0).then_some(chunk)
}

/// Fails unless `own` has exactly the keys of `recorded`, with values of the
/// same types where neither is null. Objects inside are compared only when
/// they are records, not maps with free keys.
pub fn same_shape(place: &str, recorded: &Value, own: &Value) {
    const FREE: [&str; 3] = ["properties", "workerinfo", "sourcestamps"];
    match (recorded, own) {
        (Value::Null, _) | (_, Value::Null) => {}
        (Value::Object(recorded), Value::Object(own)) => {
            let keys = |map: &serde_json::Map<String, Value>| -> Vec<String> {
                map.keys().cloned().collect()
            };
            assert_eq!(keys(recorded), keys(own), "{place}");
            for (key, value) in recorded {
                let inside = format!("{place}.{key}");
                if FREE.contains(&key.as_str()) {
                    let same = std::mem::discriminant(value) == std::mem::discriminant(&own[key]);
                    assert!(same || value.is_null() || own[key].is_null(), "{inside}");
                } else {
                    same_shape(&inside, value, &own[key]);
                }
            }
        }
        (Value::Array(recorded), Value::Array(own)) => {
            if let (Some(recorded), Some(own)) = (recorded.first(), own.first()) {
                same_shape(&format!("{place}[]"), recorded, own);
            }
        }
        _ => assert_eq!(
            std::mem::discriminant(recorded),
            std::mem::discriminant(own),
            "{place}: {recorded} and {own}"
        ),
    }
}
