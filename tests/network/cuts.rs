//! The real programs, with the link between them cut at places all over their
//! conversation, in both directions. (Every single byte is cut in
//! `tests/actors/cuts.rs`, where only the processes are played.)

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::kit::{Master, Place, builder, until, worker};
use crate::proxy::{Cut, Plan, Proxy, Way};

/// Bytes between two cuts. Nothing in a conversation is as long as a multiple.
const APART: u64 = 37;
/// Beyond the end of the shorter and the longer side of a conversation.
const ENDS: [(Way, u64); 2] = [(Way::Up, 1_900), (Way::Down, 1_100)];
/// Conversations at the same time.
const AT_ONCE: usize = 12;

/// Builds one request over a link that is cut there; answers whether the
/// conversation came so far.
fn build_over(master: &Master<'_>, name: &str, way: Way, at: u64) -> bool {
    let place = master.place;
    let proxy = Proxy::before(master.listen);
    let cut = Some(Cut::Bytes(way, at));
    // Every second one is a reset.
    proxy.plan([Plan { cut, reset: at % 2 == 1, ..Plan::default() }]);
    let request = master.force(&format!("b-{name}"));
    let _worker = place.worker(proxy.address, name, 1);
    let case = format!("{name} with {way:?} cut at {at}");
    let done = until(&format!("{case} is built"), || {
        let request = master.request(request);
        (request["complete"] == true).then_some(request)
    });
    assert_eq!(done["results"], 0, "{case}: {done}");
    // The end may have been told by the first connection, and then nothing of
    // the build is said by the second.
    let lines: Vec<String> = (1..=40).map(|number| format!("line {number}")).collect();
    assert_eq!(master.log(&format!("b-{name}"), 1, 0, 'o'), lines, "{case}");
    assert_eq!(master.log(&format!("b-{name}"), 1, 1, 'e'), ["last"], "{case}");
    let runs = place.written(&format!("runs-{name}"));
    assert_eq!(runs, "ran\n", "{case}: it ran once");
    let kept = master.list(&format!("builders/b-{name}/builds"));
    assert_eq!(kept.len(), 1, "{case}: {kept:?}");
    proxy.passed(way) >= at
}

#[test]
fn fr01_i3_i9_real_programs_with_the_link_cut_all_over_their_conversation() {
    let mut cases = VecDeque::new();
    let mut config = String::new();
    for (way, end) in ENDS {
        for at in (0..end).step_by(usize::try_from(APART).unwrap()) {
            let name = format!("w{}", cases.len());
            let line = format!(
                "echo ran >> @DIR@/runs-{name}; i=0; while [ $i -lt 40 ]; do i=$((i+1)); \
                 echo line $i; done"
            );
            config += &worker(&name, 1);
            config += &builder(&format!("b-{name}"), &name, &[&line, "echo last >&2"]);
            cases.push_back((name, way, at));
        }
    }
    let count = cases.len();
    let place = Place::new(&config);
    let master = place.master();
    let (cases, cut) = (Mutex::new(cases), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = cases.lock().unwrap().pop_front();
                    let Some((name, way, at)) = next else { return };
                    if build_over(&master, &name, way, at) {
                        cut.lock().unwrap().push((way, at));
                    }
                }
            });
        }
    });
    let cut = cut.into_inner().unwrap();
    println!("{} of {count} conversations were cut", cut.len());
    for (way, end) in ENDS {
        let last = cut.iter().filter(|(one, _)| *one == way).map(|(_, at)| *at).max();
        assert!(last > Some(end / 2) && last < Some(end - APART), "{way:?} {last:?} of {end}");
    }
}
