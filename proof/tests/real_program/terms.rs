//! SIGTERM at awkward moments.

use std::process::Stdio;
use std::time::{Duration, Instant};

use botmaster_proof::store::is_whole;
use botmaster_proof::within;
use botmaster_proof::yard::Start;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::scene::{HASTY, Scene, builder, worker};

/// Within which a master with nothing to wait for has to be gone (I20).
const LIMIT: Duration = Duration::from_secs(15);

fn config(lines: u32) -> String {
    format!("{HASTY}{}{}", worker("w"), builder("b", "\"w\"", lines))
}

#[test]
fn fm11_sigterm_during_the_start_or_a_migration_ends_the_master_and_harms_nothing() {
    let mut in_the_middle = 0;
    for wait in (0..60).step_by(3) {
        // A new data folder each time: every start migrates.
        let mut scene = Scene::new(&config(2));
        let mut command = scene.yard.command();
        command.args(["master", "--config", "x.toml", "--http", "127.0.0.1:0"]);
        command.args(["--listen", "127.0.0.1:0"]);
        let mut master = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        let served = scene.yard.path("data/listen.addr").exists();
        let pid = Pid::from_raw(master.id().try_into().unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        let ended = within(LIMIT, || master.try_wait().unwrap());
        if ended.is_none() {
            master.kill().unwrap();
            master.wait().unwrap();
        }
        let ended = ended.unwrap_or_else(|| panic!("it lived on, {wait} ms after its start"));
        // Before it listens to signals the signal ends it, before anything was done.
        let early = std::os::unix::process::ExitStatusExt::signal(&ended) == Some(15);
        assert!(early || ended.code() == Some(0), "{wait} ms: {ended}");
        in_the_middle += u32::from(!served && !early);
        if scene.yard.path("data/state.sqlite").exists() {
            is_whole(&scene.yard.path("data"), "state.sqlite").unwrap();
        }
        assert_eq!(scene.yard.start_master(None).unwrap(), Start::Serves, "{wait} ms");
        assert_eq!(scene.yard.stop(), Vec::<String>::new());
    }
    assert!(in_the_middle > 0, "no signal came during a start");
}

#[test]
fn fm11_sigterm_during_a_reload_ends_the_master_with_the_old_or_the_new_one_in_force() {
    for wait in [0, 1, 2, 4, 8, 16] {
        let mut scene = Scene::new(&config(2));
        scene.master(None);
        scene.worker("w");
        let request = scene.submit("b", "a");
        scene.yard.configure(&config(3)).unwrap();
        let master = scene.yard.master.as_ref().unwrap();
        master.signal(Signal::SIGHUP);
        std::thread::sleep(Duration::from_millis(wait));
        master.signal(Signal::SIGTERM);
        let begun = Instant::now();
        let ended = within(LIMIT, || scene.yard.master_ended());
        let ended = ended.unwrap_or_else(|| panic!("it lives on after {:?}", begun.elapsed()));
        assert_eq!(ended.code(), Some(0), "{wait} ms");
        scene.master(None);
        scene.ended(request);
        let after = scene.submit("b", "after");
        scene.ended(after);
        scene.judged_well();
    }
}
