//! What other programs watch: badges, the CCTray feed, the feed of failures.

use crate::support::{Answer, World};

fn get(world: &World, path: &str) -> Answer {
    world.ask("GET", path, &[], "")
}

fn attributes(text: &str) -> Vec<Vec<(String, String)>> {
    let document = roxmltree::Document::parse(text).unwrap();
    let projects = document.root_element().children().filter(|node| node.is_element());
    let each = projects
        .map(|node| node.attributes().map(|own| (own.name().into(), own.value().into())).collect());
    each.collect()
}

#[test]
fn cctray_tells_the_last_verdict_and_what_builds_now() {
    let world = World::start();
    // A build that was stopped says nothing: the one before it counts.
    world
        .db
        .execute_batch(
            "INSERT INTO builds (id, claim, builder_id, number, request_id, worker_id, incarnation,
                 state, started_at, complete_at, results, state_string, factory_digest, properties)
             VALUES (110, 'z', 1, 3, 12, 1, 1, 2, 1170000000, 1180000000, 6, 'stopped', 'f', '{}');
             UPDATE builders SET name = 'unit <&\"> tests' WHERE id = 2;",
        )
        .unwrap();
    let answer = get(&world, "/cc.xml");
    assert_eq!(answer.status, 200);
    assert!(answer.headers["content-type"].starts_with("application/xml"));
    let projects = attributes(&answer.body);
    assert_eq!(projects.len(), 2, "what is no longer configured is not there");
    let pairs = |project: &[(&str, &str)]| -> Vec<(String, String)> {
        project.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    };
    let base = format!("http://{}/", world.address);
    assert_eq!(
        projects[0],
        pairs(&[
            ("name", "unit"),
            ("activity", "Sleeping"),
            ("lastBuildStatus", "Failure"),
            ("lastBuildLabel", "2"),
            ("lastBuildTime", "1970-01-01T00:19:20Z"),
            ("webUrl", &format!("{base}api/v2/builders/1")),
        ])
    );
    // It builds for the first time: nothing is known of it yet.
    assert_eq!(projects[1][0].1, "unit <&\"> tests");
    assert_eq!(projects[1][2].1, "Unknown");
}

#[test]
fn cctray_keeps_the_last_status_while_the_next_build_runs() {
    let world = World::start();
    let projects = attributes(&get(&world, "/cc.xml").body);
    assert_eq!(projects[1][1].1, "Building");
    world.db.execute("UPDATE builds SET builder_id = 2, number = 9 WHERE id = 101", []).unwrap();
    let projects = attributes(&get(&world, "/cc.xml").body);
    assert_eq!((projects[1][1].1.as_str(), projects[1][2].1.as_str()), ("Building", "Success"));
}

#[test]
fn failures_are_an_atom_feed() {
    let world = World::start();
    world
        .db
        .execute("UPDATE builds SET state_string = 'failed \u{1b}[1m<b>', properties = ?1 WHERE id = 102",
            [r#"{"owner": {"value": null, "source": "x"}, "branch": {"value": "dev", "source": "x"}}"#],
        )
        .unwrap();
    let answer = get(&world, "/failures.atom");
    assert!(answer.headers["content-type"].starts_with("application/atom+xml"));
    let document = roxmltree::Document::parse(&answer.body).unwrap();
    let feed = document.root_element();
    let child = |of: roxmltree::Node<'_, '_>, name: &str| {
        let found = of.children().find(|node| node.tag_name().name() == name);
        found.and_then(|node| node.text()).unwrap_or_default().to_owned()
    };
    assert_eq!(feed.tag_name().namespace(), Some("http://www.w3.org/2005/Atom"));
    assert_eq!(child(feed, "title"), "Test <CI>: failed builds");
    assert_eq!(child(feed, "updated"), "1970-01-01T00:19:20Z");
    let entries: Vec<_> =
        feed.children().filter(|node| node.tag_name().name() == "entry").collect();
    assert_eq!(entries.len(), 1);
    assert_eq!(child(entries[0], "id"), "tag:host,2026:builds/102");
    assert_eq!(child(entries[0], "title"), "unit 2: failure");
    assert_eq!(child(entries[0], "summary"), "failed \u{fffd}[1m<b>, branch dev");
    assert_eq!(child(entries[0], "updated"), "1970-01-01T00:19:20Z");
    let none = get(&world, "/failures.atom?builder=slow%20build");
    let document = roxmltree::Document::parse(&none.body).unwrap();
    assert_eq!(child(document.root_element(), "title"), "Test <CI>: failed builds of slow build");
    assert!(!none.body.contains("<entry>"));
    assert_eq!(get(&world, "/failures.atom?builder=nope").status, 404);
}

#[test]
fn badges_show_the_last_verdict() {
    let world = World::start();
    let title = |path: &str| {
        let answer = get(&world, path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert_eq!(answer.headers["content-type"], "image/svg+xml");
        let document = roxmltree::Document::parse(&answer.body).unwrap();
        let title = document.descendants().find(|node| node.tag_name().name() == "title");
        title.unwrap().text().unwrap().to_owned()
    };
    assert_eq!(title("/badges/unit.svg"), "unit: failing");
    assert_eq!(title("/badges/1.svg"), "unit: failing");
    // The first build was on that branch, the second on none.
    assert_eq!(title("/badges/unit.svg?branch=main"), "unit: passing");
    assert_eq!(title("/badges/unit.svg?branch=nope"), "unit: not built yet");
    assert_eq!(title("/badges/slow%20build.svg?left_text=a%3Cb"), "a<b: not built yet");
    // Where Buildbot's plugin has them.
    assert_eq!(title("/plugins/badges/unit.svg"), "unit: failing");
    assert_eq!(get(&world, "/badges/nope.svg").status, 404);
    assert_eq!(get(&world, "/badges/unit").status, 404);
    let tag = get(&world, "/badges/unit.svg").headers["etag"].clone();
    let again = world.ask("GET", "/badges/unit.svg", &[("If-None-Match", &tag)], "");
    assert_eq!((again.status, again.body.as_str()), (304, ""));
}
