//! Masters that cannot start: a clear text, an exit code, and nothing changed.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::kit::{Place, Ran, builder, run, worker};

const FREE: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

fn place() -> Place {
    Place::new(&format!("{}{}", worker("w", 1), builder("b", "w", &["true"])))
}

/// A place whose data a master made and left.
fn used_place() -> Place {
    let place = place();
    let mut master = place.master();
    master.force("b");
    master.process.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(master.process.code_within(std::time::Duration::from_secs(15)), Some(0));
    drop(master);
    place
}

fn start(place: &Place, http: SocketAddr, listen: SocketAddr) -> Ran {
    run(&mut place.master_command(http, listen))
}

/// Name and bytes of every file below a folder.
fn snapshot(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(snapshot(&path));
        } else {
            all.insert(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
    all
}

/// A command whose arguments are run by a shell after `setup`.
fn wrapped(place: &Place, program: &str, args: &[&str], setup: &str) -> Command {
    let inner = place.master_command(FREE.into(), FREE.into());
    let mut command = Command::new(program);
    command.args(args).arg("sh").arg("-c").arg(format!("{setup} exec \"$@\"")).arg("sh");
    command.arg(inner.get_program()).args(inner.get_args());
    place.prepare(&mut command);
    command
}

#[test]
fn a_port_in_use_is_named_with_the_flag_that_changes_it() {
    let place = used_place();
    let before = snapshot(&place.path("data"));
    let taken = TcpListener::bind(SocketAddr::from(FREE)).unwrap();
    let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
    let ran = start(&place, FREE.into(), taken.1).expect(75);
    assert!(ran.err.contains(&format!("cannot listen on {} (workers)", taken.1)), "{}", ran.all());
    assert!(ran.err.contains("another address with --listen"), "{}", ran.all());
    assert_eq!(snapshot(&place.path("data")), before);
    let ran = start(&place, taken.1, FREE.into()).expect(75);
    assert!(ran.err.contains(&format!("cannot listen on {} (HTTP)", taken.1)), "{}", ran.all());
    assert!(ran.err.contains("another address with --http"), "{}", ran.all());
    drop(taken);
    let master = place.master();
    assert_eq!(master.board()["builders"]["b"]["waiting"], 1);
}

#[test]
fn fm15_a_data_folder_in_use_names_who_has_it() {
    let place = place();
    let master = place.master();
    let _worker = master.worker("w", 1);
    let ran = start(&place, FREE.into(), FREE.into()).expect(75);
    assert!(
        ran.err.contains(&format!(
            "another master is running on this data folder: process {} on host ",
            master.process.id()
        )),
        "{}",
        ran.all()
    );
    assert!(ran.err.contains("give this one another `data_dir`"), "{}", ran.all());
    // The first one does not notice, and is still found by its address.
    let address = fs::read_to_string(place.path("data/http.addr")).unwrap();
    assert_eq!(address.trim(), master.http.to_string());
    master.force("b");
    master.ended_as("b", 1, 0);
}

#[test]
fn fm16_a_newer_schema_is_refused_and_left_alone() {
    let place = used_place();
    let file = place.path("data/state.sqlite");
    // The version is a number of four bytes at a fixed place of the file.
    let mut bytes = fs::read(&file).unwrap();
    bytes.splice(60..64, 99_u32.to_be_bytes());
    fs::write(&file, &bytes).unwrap();
    let before = snapshot(&place.path("data"));
    let ran = start(&place, FREE.into(), FREE.into()).expect(75);
    assert!(ran.err.contains("this file has schema version 99"), "{}", ran.all());
    assert!(ran.err.contains("Start the newer program again"), "{}", ran.all());
    // Looking at the version makes SQLite's own side files, which hold nothing;
    // the lock file says who tried.
    let kept = |mut files: BTreeMap<String, Vec<u8>>| {
        files.retain(|name, bytes| {
            let side = name.ends_with("-wal") && bytes.is_empty() || name.ends_with("-shm");
            !side && !name.ends_with("master.lock")
        });
        files
    };
    let (before, after) = (kept(before), kept(snapshot(&place.path("data"))));
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    for (name, bytes) in after {
        assert!(bytes == before[&name], "{name} was changed");
    }
}

#[test]
fn a_data_folder_that_may_not_be_written_is_named() {
    let place = used_place();
    let data = place.path("data");
    let readable = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    // Readable for everybody, writable for nobody but the owner.
    readable(&place.path("."), 0o755);
    readable(&place.path("x.toml"), 0o644);
    for (path, _) in snapshot(&data) {
        readable(Path::new(&path), 0o444);
    }
    readable(&data.join("tokens"), 0o555);
    readable(&data, 0o555);
    let before = snapshot(&data);
    let mut command = if nix::unistd::geteuid().is_root() {
        let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
        wrapped(&place, "setpriv", &nobody, "")
    } else {
        wrapped(&place, "env", &[], "")
    };
    let ran = run(&mut command).expect(75);
    readable(&data, 0o755);
    readable(&data.join("tokens"), 0o755);
    assert!(ran.err.contains("data/") && ran.err.contains("ermission denied"), "{}", ran.all());
    assert!(ran.err.contains("Give the master's user the right to write there"), "{}", ran.all());
    assert_eq!(snapshot(&data), before);
}

#[test]
fn fd08_a_full_data_folder_is_named() {
    let place = place();
    // A file may have no more than a few blocks: as if the disk were full.
    let ran = run(&mut wrapped(&place, "env", &[], "ulimit -f 8; trap '' XFSZ;")).expect(75);
    assert!(
        ran.err.contains(&place.path("data").display().to_string()) || ran.err.contains("data/")
    );
    assert!(ran.err.contains("Free some room in that file system"), "{}", ran.all());
    // With room again it starts as if nothing had been.
    let master = place.master();
    let _worker = master.worker("w", 1);
    master.force("b");
    master.ended_as("b", 1, 0);
}

#[test]
fn fm16_a_newer_text_file_is_refused_before_the_state_is_brought_up_to_date() {
    let place = used_place();
    // As an older program left it: its state has one step less.
    let state = place.path("data/state.sqlite");
    let version = {
        let bytes = fs::read(&state).unwrap();
        u32::from_be_bytes(bytes[60..64].try_into().unwrap())
    };
    set_version(&state, version - 1);
    set_version(&place.path("data/logs.sqlite"), 99);
    let ran = start(&place, FREE.into(), FREE.into()).expect(75);
    assert!(ran.err.contains("logs.sqlite: this file has schema version 99"), "{}", ran.all());
    let bytes = fs::read(&state).unwrap();
    assert_eq!(bytes[60..64], (version - 1).to_be_bytes(), "the state was migrated");
}

/// The version is a number of four bytes at a fixed place of the file.
fn set_version(file: &Path, version: u32) {
    let mut bytes = fs::read(file).unwrap();
    bytes.splice(60..64, version.to_be_bytes());
    fs::write(file, &bytes).unwrap();
}

#[test]
fn fd10_a_damaged_table_stops_a_start_that_looks_and_names_the_repair() {
    let place = used_place();
    let state = place.path("data/state.sqlite");
    let whole = fs::read(&state).unwrap();
    let mut damaged = whole.clone();
    // One page, which a start need not read.
    let root: usize = {
        let conn = rusqlite::Connection::open(&state).unwrap();
        let sql = "SELECT rootpage FROM sqlite_master WHERE name = 'buildsets_submitted'";
        conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap().try_into().unwrap()
    };
    damaged[(root - 1) * 4096..root * 4096].fill(0x5a);
    fs::write(&state, &damaged).unwrap();
    let mut command = place.master_command(FREE.into(), FREE.into());
    let ran = run(command.arg("--verify")).expect(75);
    assert!(ran.err.contains("data/state.sqlite: a table is damaged"), "{}", ran.all());
    assert!(ran.err.contains("Restore a backup"), "{}", ran.all());
    assert!(ran.err.contains("sqlite3 ") && ran.err.contains(".recover"), "{}", ran.all());
    assert!(fs::read(&state).unwrap() == damaged, "the file was changed");
    let ran = run(place.program().args(["check", "--config", "x.toml", "--store"])).expect(1);
    assert!(ran.err.contains("data/state.sqlite: a table is damaged"), "{}", ran.all());

    fs::write(&state, &whole).unwrap();
    let ran = run(place.program().args(["check", "--config", "x.toml", "--store"])).expect(0);
    assert!(ran.out.contains("0 with damage"), "{}", ran.all());
    place.master_told(FREE.into(), FREE.into(), &["--verify"]);
}

#[test]
fn fd07_a_data_folder_that_another_program_holds_is_named() {
    let place = used_place();
    let conn = rusqlite::Connection::open(place.path("data/state.sqlite")).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ran = start(&place, FREE.into(), FREE.into()).expect(75);
    assert!(ran.err.contains("data/state.sqlite: database is locked"), "{}", ran.all());
    assert!(ran.err.contains("Another program holds the file: end it"), "{}", ran.all());
    conn.execute_batch("ROLLBACK").unwrap();
    drop(conn);
    place.master();
}
