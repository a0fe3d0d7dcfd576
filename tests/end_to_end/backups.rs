//! Backups of a master at work, and what becomes of them.

use std::fs;

use crate::kit::{Place, builder, counting, is_alive, until, waiting, worker};

/// Lines enough that the log is not kept in the state.
const LONG: &str = "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; done";

fn counted() -> Vec<String> {
    (1..=2000).map(|n| format!("line {n}")).collect()
}

#[test]
fn fd12_a_backup_under_load_is_restored_and_nothing_is_given_out_twice() {
    let unknown = format!("echo $$ > @DIR@/unknown; {}", waiting("never"));
    let place = Place::new(&format!(
        "{}{}{}{}",
        worker("w", 4),
        builder("open", "w", &[&counting("go")]),
        builder("quick", "w", &[LONG]),
        builder("later", "w", &[&unknown]),
    ));
    let mut master = place.master();
    let mut worker = master.worker("w", 4);
    master.force("open");
    master.said("open", 1, 0, "line 3");
    for _ in 0..6 {
        master.force("quick");
    }
    master.ended_as("quick", 2, 0);

    // Others are on their way and go on meanwhile.
    let copy = place.path("copy");
    let ran = place.cli(&["backup", "--config", "x.toml", "--json", copy.to_str().unwrap()]);
    let told = ran.expect(0).json().remove(0);
    assert!(told["builds"].as_u64().unwrap() >= 2 && told["damaged_logs"] == 0, "{told}");
    assert_eq!((&told["tokens"], &told["marked_logs"]), (&1.into(), &0.into()), "{told}");
    let ran = place.cli(&["backup", "--config", "x.toml", copy.to_str().unwrap()]).expect(1);
    assert!(ran.err.contains("copy") && ran.err.contains("Give another name"), "{}", ran.all());
    let saved = told["builds"].as_u64().unwrap();

    // What happens after the backup is lost with the data folder.
    master.force("later");
    let pid: i32 = place.written("unknown").trim().parse().unwrap();
    let lost = master.running("later", 1)["buildid"].as_u64().unwrap();
    let last = until("the quick ones are over", || master.build("quick", 6));
    assert_eq!(last["number"], 6);
    master.ended_as("quick", 6, 0);
    let incarnation = |master: &crate::kit::Master<'_>| {
        master.board()["workers"]["w"]["incarnation"].as_u64().unwrap_or_default()
    };
    let before = incarnation(&master);
    let (http, listen) = (master.http, master.listen);
    master.process.kill();
    drop(master);

    let ran = place.cli(&["restore", "--config", "x.toml", copy.to_str().unwrap()]).expect(1);
    assert!(ran.err.contains("nothing is written over"), "{}", ran.all());
    fs::rename(place.path("data"), place.path("lost-data")).unwrap();
    let ran = place.cli(&["restore", "--config", "x.toml", copy.to_str().unwrap()]).expect(0);
    assert!(ran.out.contains("--restored"), "{}", ran.all());

    // Without the word it would give numbers out again, so it does not start.
    let ran = crate::kit::run(&mut place.master_command(http, listen)).expect(75);
    assert!(ran.err.contains("state.sqlite") && ran.err.contains("--restored"), "{}", ran.all());

    let master = place.master_told(http, listen, &["--restored"]);
    let kept = (1..=6).filter_map(|number| master.build("quick", number));
    let kept: Vec<_> = kept.filter(|build| build["complete"] == true).collect();
    assert!(kept.len() as u64 >= saved, "{} of {saved}", kept.len());
    for build in kept.iter().filter(|build| build["results"] == 0) {
        let number = build["number"].as_u64().unwrap();
        assert_eq!(master.log("quick", number, 0, 'o'), counted(), "quick/{number}");
    }
    // The worker's build that the backup does not know is abandoned.
    until("the unknown build's process ends", || (!is_alive(pid)).then_some(()));
    assert!(master.build("later", 1).is_none());
    // The one that ran at the time of the backup is built again, elsewhere in
    // the numbers: its worker has said more of it than the backup knows.
    let text = master.ended_as("open", 1, 5)["state_string"].clone();
    assert!(text.as_str().unwrap().contains("lost"), "{text}");
    place.open("go");
    master.ended_as("open", 1002, 0);
    place.gone("go");
    let request = master.force("later");
    let new = master.running("later", 1001);
    assert!(new["buildid"].as_u64().unwrap() > lost + 900_000, "{new}");
    assert!(request > 900_000, "request {request}");
    assert!(before < 1000 && worker.has_ended().is_none());

    // Once is enough.
    let mut master = master;
    master.process.kill();
    let master = master.again();
    assert!(master.build("later", 1001).is_some());
}

#[test]
fn a_backup_without_a_master_is_made_and_a_broken_one_is_not_restored() {
    let place = Place::new(&format!("{}{}", worker("w", 1), builder("b", "w", &[LONG])));
    let mut master = place.master();
    let w = master.worker("w", 1);
    master.force("b");
    master.ended_as("b", 1, 0);
    master.process.kill();
    drop((w, master));
    let copy = place.path("deep");
    let copy = copy.to_str().unwrap();
    place.cli(&["backup", "--config", "x.toml", copy]).expect(0);
    let names: Vec<String> = fs::read_dir(copy)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert!(!names.iter().any(|name| name.ends_with("-wal")), "{names:?}");
    let elsewhere = place.path("elsewhere");
    let to = elsewhere.to_str().unwrap();

    let state = format!("{copy}/state.sqlite");
    let whole = fs::read(&state).unwrap();
    let mut torn = whole.clone();
    let middle = torn.len() / 2;
    torn[middle..].fill(0x5a);
    fs::write(&state, &torn).unwrap();
    let ran = place.cli(&["restore", "--data-dir", to, copy]).expect(1);
    assert!(ran.err.contains("state.sqlite: ") && ran.err.contains(".recover"), "{}", ran.all());
    assert!(!elsewhere.exists());

    fs::write(&state, &whole).unwrap();
    place.cli(&["restore", "--data-dir", to, copy]).expect(0);
    assert!(elsewhere.join("tokens/w.token").is_file());
    let ran = place.cli(&["restore", "--data-dir", to, place.path("no").to_str().unwrap()]);
    assert!(ran.expect(1).err.contains("no finished backup"));
    let ran = place.cli(&["backup", "--data-dir", place.path("no").to_str().unwrap(), "x"]);
    let ran = ran.expect(1);
    assert!(ran.err.contains("no/state.sqlite: there is no such file"), "{}", ran.all());
}
