//! Buildbot's own web pages, unmodified, in a headless browser against the
//! real program: each page loads without an error in its console, a live log
//! grows, and the buttons work. They need a browser and the pages, so they are
//! left out of the ordinary test run; `cargo xtask ui` has both and runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code, unused_imports)]
#[path = "../end_to_end/kit/mod.rs"]
mod kit;

mod browser;

use std::path::PathBuf;

use browser::Browser;
use kit::{Master, Place, Process, builder, counting, until, worker};

/// A folder or program that `cargo xtask ui` found.
fn given(variable: &str) -> PathBuf {
    std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} is not set: run this by `cargo xtask ui`"))
        .into()
}

/// A master with the pages, its workers, and some builds of the past. They take
/// more than a second: the waterfall cannot draw a time of no length.
fn place() -> Place {
    let pages = given("BOTMASTER_STOCK_UI");
    let config = [
        format!("[master]\ntitle = \"Pages\"\nui_dir = '{}'\n", pages.display()),
        worker("w", 2),
        worker("away", 1),
        builder("quick", "w", &["echo hello; echo there >&2", "sleep 1.2"]),
        builder("broken", "w", &["echo it fails; exit 3"]),
        builder("live", "w", &[&counting("go")]),
        builder("waits", "away", &["echo never"]),
    ];
    Place::new(&config.concat())
}

fn filled(place: &Place) -> (Master<'_>, Process) {
    let master = place.master();
    let process = master.worker("w", 2);
    master.attached("w");
    master.force("quick");
    master.force("broken");
    master.ended_as("quick", 1, 0);
    master.ended_as("broken", 1, 2);
    master.force("waits");
    (master, process)
}

fn start() -> Browser {
    Browser::start(&given("BOTMASTER_BROWSER"), &given("BOTMASTER_SHOTS"))
}

/// The id of a builder.
fn builder_id(master: &Master<'_>, name: &str) -> i64 {
    master.one(&format!("builders/{name}")).unwrap()["builderid"].as_i64().unwrap()
}

#[test]
#[ignore = "needs a browser: cargo xtask ui"]
fn every_page_loads_without_an_error() {
    let place = place();
    let (master, _worker) = filled(&place);
    let mut browser = start();
    let quick = builder_id(&master, "quick");
    let broken = builder_id(&master, "broken");
    let request = master.list("buildrequests?claimed=false")[0]["buildrequestid"].clone();
    let pages = [
        ("home", "/".to_owned(), "recent builds"),
        ("builders", "/builders".into(), "quick"),
        ("builder", format!("/builders/{quick}"), "build successful"),
        ("builder-by-name", "/builders/quick".into(), "build successful"),
        ("build-success", format!("/builders/{quick}/builds/1"), "s1"),
        ("build-failure", format!("/builders/{broken}/builds/1"), "it fails"),
        ("log", format!("/builders/{quick}/builds/1/steps/0/logs/stdio"), "there"),
        ("buildrequest", format!("/buildrequests/{request}"), "waits"),
        ("pending", "/pendingbuildrequests".into(), "waits"),
        ("changes", "/changes".into(), "hanges"),
        ("workers", "/workers".into(), "away"),
        ("worker", "/workers/1".into(), "quick"),
        ("masters", "/masters".into(), "Name"),
        ("schedulers", "/schedulers".into(), "Scheduler"),
        ("projects", "/projects".into(), "Project"),
        ("settings", "/settings".into(), "Max recent builds"),
        ("about", "/about".into(), "botmaster"),
        ("waterfall", "/waterfall".into(), "quick"),
        ("console", "/console".into(), "No changes"),
        ("grid", "/grid".into(), "rid"),
    ];
    let mut wrong = Vec::new();
    for (name, path, text) in pages {
        let mut page = browser.open(&format!("{}/#{path}", master.url()));
        page.shows(text);
        page.picture(name);
        page.eval("1");
        wrong.extend(page.errors.iter().map(|error| format!("{name}: {error}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
#[ignore = "needs a browser: cargo xtask ui"]
fn a_build_is_forced_watched_stopped_and_built_again() {
    let place = place();
    let (master, _worker) = filled(&place);
    let mut browser = start();
    let live = builder_id(&master, "live");

    let mut page = browser.open(&format!("{}/#/builders/{live}", master.url()));
    page.press("Force build");
    page.shows("Start build");
    page.picture("force-dialog");
    page.press("Start build");
    until("the forced build runs", || master.build("live", 1));
    // The pages show it by themselves.
    page.wait("the build is shown", "document.body.innerText.includes('building')");
    page.picture("builder-live");
    page.is_clean("force");
    drop(page);

    let log = format!("{}/#/builders/{live}/builds/1/steps/0/logs/stdio", master.url());
    let mut page = browser.open(&log);
    page.wait("the log's text", "document.body.innerText.includes('line 1')");
    // Not the rows: there are never more of them than fit on the screen.
    let height = "Math.max(...Array.from(document.querySelectorAll('*'), one => one.scrollHeight))";
    let first = page.eval(height).as_u64().unwrap();
    page.wait("the log grows on the page", &format!("{height} > {}", first + 60));
    page.picture("log-live");
    page.is_clean("live log");
    drop(page);

    let mut page = browser.open(&format!("{}/#/builders/{live}/builds/1", master.url()));
    page.press("Stop");
    master.ended_as("live", 1, 6);
    page.shows("Rebuild");
    page.wait("the end is shown", "document.body.innerText.includes('CANCELLED')");
    page.picture("build-stopped");
    page.press("Rebuild");
    until("the build runs again", || master.build("live", 2));
    page.is_clean("stop and rebuild");
    drop(page);
    place.open("go");
    master.ended_as("live", 2, 0);
}

#[test]
#[ignore = "needs a browser: cargo xtask ui"]
fn a_request_is_cancelled_and_a_worker_paused() {
    let place = place();
    let (master, _worker) = filled(&place);
    let mut browser = start();
    let id = master.list("buildrequests?claimed=false")[0]["buildrequestid"].as_i64().unwrap();

    let mut page = browser.open(&format!("{}/#/buildrequests/{id}", master.url()));
    page.press("Cancel");
    until("the request is cancelled", || (master.request(id)["results"] == 6).then_some(()));
    page.wait(
        "there is nothing to cancel any more",
        "![...document.querySelectorAll('button')].some(e => e.innerText.startsWith('Cancel'))",
    );
    page.picture("buildrequest-cancelled");
    page.is_clean("cancel");
    drop(page);

    let mut page = browser.open(&format!("{}/#/workers/1", master.url()));
    page.press("Actions...");
    page.press("Pause");
    until("the worker is paused", || {
        (master.one("workers/w").unwrap()["paused"] == true).then_some(())
    });
    page.picture("worker-paused");
    page.is_clean("pause");
}
