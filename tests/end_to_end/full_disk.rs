//! A master whose disk is full: a small file system of its own, which only it
//! sees. Its data are looked at through the process.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::kit::{Master, Place, Process, builder, until, waiting, worker};

/// Size of the file system, in MiB.
const SIZE: u64 = 48;

/// A master on a data folder of its own file system.
fn on_small_disk(place: &Place) -> (Master<'_>, PathBuf) {
    let data = place.path("data");
    let kept = place.path("kept-tokens");
    // The tokens are below the data folder, where the mount hides them.
    if !kept.exists() {
        fs::rename(data.join("tokens"), &kept).unwrap();
    }
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let inner = place.master_command(free, free);
    let line = format!(
        "mount -t tmpfs -o size={SIZE}m tmpfs {data} && cp -r {kept} {data}/tokens && exec \"$@\"",
        data = data.display(),
        kept = kept.display(),
    );
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", &line, "sh"]);
    command.arg(inner.get_program()).args(inner.get_args());
    place.prepare(&mut command);
    let mut process = Process::start(&mut command, &place.path("master.log"));
    let inside = PathBuf::from(format!("/proc/{}/root{}", process.id(), data.display()));
    let read = |name: &str| -> Option<SocketAddr> {
        fs::read_to_string(inside.join(name)).ok()?.trim().parse().ok()
    };
    let addresses = until("the master serves", || {
        assert!(process.has_ended().is_none(), "no small file system (unshare), or no master");
        Some((read("http.addr")?, read("listen.addr")?))
    });
    (Master::new(place, process, addresses), inside)
}

/// Fills the file system to its last byte.
fn fill(data: &Path) {
    let mut file = fs::File::create(data.join("filler")).unwrap();
    let block = vec![0x5a_u8; 4096];
    while file.write_all(&block).is_ok() {}
}

fn full(master: &Master<'_>) -> Option<String> {
    master.board()["store"]["full"].as_str().map(str::to_owned)
}

#[test]
fn fl07_fd08_a_full_disk_pauses_new_starts_and_running_builds_end() {
    let long = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i of much output; done";
    let place = Place::new(&format!(
        "{}{}{}{}",
        worker("w", 3),
        builder("quiet", "w", &[&format!("{}; echo end", waiting("quiet"))]),
        builder("loud", "w", &[&format!("{}; {long}; echo end", waiting("loud"))]),
        builder("later", "w", &["echo later"]),
    ));
    let kept = place.path("data/tokens/w.token");
    let token = fs::read_to_string(&kept).unwrap();
    let (master, data) = on_small_disk(&place);
    // The worker reads its token where it always was.
    fs::create_dir_all(kept.parent().unwrap()).unwrap();
    fs::write(&kept, token).unwrap();
    let _worker = master.worker("w", 3);
    for name in ["quiet", "loud"] {
        master.force(name);
        master.running(name, 1);
    }
    assert!(data.join("reserve").exists(), "no reserve");
    assert_eq!(full(&master), None);

    fill(&data);
    // What nobody can store is asked for until the disk is noticed to be full;
    // the reserve lets it through.
    until("the store is full", || {
        let (status, answer) = master.order(
            "forceschedulers/force",
            "force",
            &serde_json::json!({ "builderNames": ["later"] }),
        );
        assert_eq!(status, 200, "{answer}");
        full(&master).map(drop)
    });
    // It may have been claimed just before; this one comes after.
    let request = master.force("later");
    let text = full(&master).unwrap();
    assert!(text.starts_with("the store is full: no new builds start until "), "{text}");
    assert!(!data.join("reserve").exists(), "the reserve is kept");
    let shown = master.cli(&["builders"]).expect(0);
    assert!(shown.out.contains(&text), "{}", shown.all());
    let mut page = ureq::get(format!("{}/", master.url())).call().unwrap();
    let page = page.body_mut().read_to_string().unwrap();
    assert!(page.contains("the store is full: no new builds start"), "{page}");

    // A result goes through, with its short log.
    place.open("quiet");
    master.ended_as("quiet", 1, 0);
    assert_eq!(master.log("quiet", 1, 0, 'o'), ["end"]);
    // Nothing new starts: each claim is refused, and the request is back in the
    // queue.
    until("the request waits", || {
        assert_eq!(master.request(request)["claimed"], Value::Bool(false));
        (master.board()["builders"]["later"]["waiting"].as_u64() >= Some(1)).then_some(())
    });
    // The loud one writes more than there is room for and goes on all the same.
    place.open("loud");

    fs::remove_file(data.join("filler")).unwrap();
    until("there is room again", || full(&master).is_none().then_some(()));
    master.ended_as("loud", 1, 0);
    let lines = master.log("loud", 1, 0, 'o');
    assert_eq!(lines.len(), 20_001);
    for (place, line) in lines.iter().take(20_000).enumerate() {
        assert_eq!(*line, format!("{} of much output", place + 1));
    }
    until("the request is built", || (master.request(request)["results"] == 0).then_some(()));
    assert!(data.join("reserve").exists(), "the reserve was not made again");
}
