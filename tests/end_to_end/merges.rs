//! Requests that share a build, and requests that name their worker, with the
//! real program.

use serde_json::json;

use crate::kit::{Place, builder, until, waiting, worker};

fn configured(lines: &str) -> Place {
    let slow = builder("b", "w", &[&waiting("go")]);
    let slow =
        slow.replacen("workers = [\"w\"]\n", &format!("workers = [\"w\", \"v\"]\n{lines}"), 1);
    Place::new(&format!("{}{}{slow}", worker("w", 1), worker("v", 1)))
}

#[test]
fn b09_three_equal_requests_give_one_build_when_they_merge_and_three_when_not() {
    for (merge, builds) in [("\"same source\"", 1), ("\"none\"", 3)] {
        let place = configured(&format!("merge = {merge}\n"));
        place.open("go");
        let master = place.master();
        let ids = [master.force("b"), master.force("b"), master.force("b")];
        let _worker = master.worker("w", 1);
        for id in ids {
            let request = until("the request is built", || {
                Some(master.request(id)).filter(|request| request["complete"] == true)
            });
            assert_eq!(request["results"], 0, "{merge}: {request}");
            // Each finds its build, whoever leads it.
            assert_eq!(master.list(&format!("buildrequests/{id}/builds")).len(), 1);
        }
        assert_eq!(master.list("builds").len(), builds, "{merge}");
        let requests = master.list("builders/b/builds/1/buildrequests?field=buildrequestid");
        let requests: Vec<_> =
            requests.iter().map(|row| row["buildrequestid"].as_i64().unwrap()).collect();
        let shown = master.cli(&["build", "b/1"]).expect(0);
        let shown_json = master.cli(&["--json", "build", "b/1"]).expect(0).json();
        assert_eq!(shown_json[0]["buildrequestids"], json!(requests));
        if builds == 1 {
            assert_eq!(requests, ids);
            let [first, second, third] = ids;
            let line = format!("Request  {first}, together with {second}, {third}\n");
            assert!(shown.out.contains(&line), "{}", shown.all());
        } else {
            assert_eq!(requests, ids[..1]);
            assert!(shown.out.contains(&format!("Request  {}\n", ids[0])), "{}", shown.all());
        }
    }
}

#[test]
fn b09_a_property_of_the_list_keeps_requests_apart() {
    let place = configured("merge = [\"channel\"]\n");
    place.open("go");
    let master = place.master();
    for channel in ["beta", "stable", "beta"] {
        let channel = format!("channel={channel}");
        master.cli(&["force", "b", "-p", &channel]).expect(0);
    }
    let _worker = master.worker("w", 1);
    master.ended_as("b", 1, 0);
    master.ended_as("b", 2, 0);
    let of = |number: u64| master.list(&format!("builders/b/builds/{number}/buildrequests")).len();
    assert_eq!((of(1), of(2), master.list("builds").len()), (2, 1, 2));
}

#[test]
fn b07_a_cancel_of_one_that_shares_a_running_build_says_how_to_stop_it() {
    let place = configured("merge = \"same source\"\n");
    let master = place.master();
    let ids = [master.force("b"), master.force("b")];
    let _worker = master.worker("w", 1);
    let build = master.running("b", 1)["buildid"].as_i64().unwrap();
    let ran = master.cli(&["cancel", &ids[1].to_string()]).expect(2);
    let text = format!(
        "build request {} is not cancelled: build b/1 (id {build}) has started for it together \
         with build request {}; stop that build to end all of them: botmaster stop {build}",
        ids[1], ids[0]
    );
    assert!(ran.err.contains(&text), "{}", ran.all());
    let (status, answer) = master.order(&format!("buildrequests/{}", ids[0]), "cancel", &json!({}));
    assert_eq!(status, 409, "{answer}");
    assert_eq!(master.build("b", 1).unwrap()["complete"], false, "nothing changed");
    master.cli(&["stop", &build.to_string()]).expect(0);
    master.ended_as("b", 1, 6);
    // Both ended with it; to cancel what has ended is no error.
    for id in ids {
        assert_eq!(master.request(id)["results"], 6);
        master.cli(&["cancel", &id.to_string()]).expect(0);
    }
}

#[test]
fn b12_a_property_names_the_worker_and_blocks_nobody_behind_it() {
    let place = configured("choose = \"first\"\n");
    place.open("go");
    let master = place.master();
    let _w = master.worker("w", 1);
    master.attached("w");
    let named = master.cli(&["--json", "force", "b", "-p", "workername=v"]).expect(0).json();
    let named = named[0][1].as_object().unwrap().values().next().unwrap().as_i64().unwrap();
    let other = master.force("b");
    assert_eq!(master.ended_as("b", 1, 0)["buildrequestid"], other);
    let ran = master.cli(&["force", "b", "-p", "workername=x"]).expect(2);
    assert!(
        ran.err.contains(
            "refused: builder `b` has no worker `x`, which the property `workername` names; \
             its workers are: w, v"
        ),
        "{}",
        ran.all()
    );
    let _v = master.worker("v", 1);
    let build = master.ended_as("b", 2, 0);
    assert_eq!(build["buildrequestid"], named);
    let properties = &master.one("builders/b/builds/2?property=*").unwrap()["properties"];
    assert_eq!(properties["workername"][0], "v");
    // A repetition of a build that ran somewhere by chance is bound to nobody.
    master.cli(&["rebuild", "b/1"]).expect(0);
    let again = master.ended_as("b", 3, 0)["buildrequestid"].as_i64().unwrap();
    let said = master.one(&format!("buildrequests/{again}?property=workername")).unwrap();
    assert_eq!(said["properties"], json!({}));
}
