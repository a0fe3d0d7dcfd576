//! Moments in a builder's life, as the event stream tells them.

use std::sync::Arc;
use std::time::Duration;

use botmaster::core::values::{CheckoutMode, Factory, StepKind};
use botmaster::events::Event;
use botmaster::messages::Refusal;
use botmaster::settings::Timers;
use botmaster::store::{Change, NoteRow};
use tokio::sync::mpsc::Receiver;

use crate::house::*;
use crate::robot::Say;

/// What was told so far. Each has the next number and is stored already.
struct Heard {
    stream: Receiver<Arc<Event>>,
    next: u64,
    /// The text, and whether it is a beginning (`…`) or the end of one (`.`).
    notes: Vec<String>,
    rows: Vec<Arc<NoteRow>>,
}

impl Heard {
    fn from_now(house: &House) -> Self {
        let stream = house.events.listen();
        Self { stream, next: house.events.next_seq(), notes: Vec::new(), rows: Vec::new() }
    }

    fn listen(&mut self, house: &House) -> &[String] {
        while let Ok(event) = self.stream.try_recv() {
            assert_eq!(event.seq, self.next, "i11: numbers without a gap");
            self.next += 1;
            let (row, mark) = match &event.change {
                Change::Note(row) if row.ended_at.is_none() => (row, "…"),
                Change::Note(row) => (row, ""),
                Change::NoteEnded(row) => (row, "."),
                _ => continue,
            };
            let stored = format!("SELECT count(*) FROM notes WHERE id = {}", row.id);
            assert_eq!(house.number(&stored), 1, "i12: durable before told");
            self.notes.push(format!("{}{mark}", row.text));
            self.rows.push(row.clone());
        }
        &self.notes
    }

    async fn until(&mut self, house: &House, notes: &[&str]) {
        let end = house.comes_true(LIMIT, || self.listen(house).len() >= notes.len()).await;
        assert!(end, "heard only {:?}\n{}", self.notes, house.describe());
        assert_eq!(self.notes, notes);
        self.notes.clear();
    }
}

#[test]
fn b27_b30_attach_detach_last_detach_and_idle_are_told_in_order_with_their_errors() {
    story(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let mut heard = Heard::from_now(&house);
        let w1 = house.robot("w1");
        w1.hold(Say::Ready);
        heard.until(&house, &["failed connect w1"]).await;
        let error = heard.rows[0].error.as_deref();
        assert_eq!(error, Some("the worker did not answer in time"), "b30: with the error text");
        w1.release(Say::Ready);
        heard.until(&house, &["connect w1", "idle"]).await;
        house.submit("a", 1).await;
        heard.until(&house, &["building", "idle"]).await;
        // Nothing new: idle is told only when it changed.
        house.submit("a", 1).await;
        heard.until(&house, &["building", "idle"]).await;
        w1.go();
        heard.until(&house, &["disconnect w1", "last disconnect", "offline"]).await;
        for row in &heard.rows {
            let of_worker = row.text.contains("w1");
            assert_eq!(row.worker.is_some(), of_worker, "b30: {row:?} on the worker's page");
        }
        house.close();
    });
}

#[test]
fn b27_the_last_detach_is_told_while_a_build_waits_for_its_worker() {
    story(|| async {
        let workers = [("w1", 1), ("w2", 1)];
        let house = House::open(&workers, vec![builder("a", &["w1", "w2"])]).await;
        let mut heard = Heard::from_now(&house);
        let [w1, w2] = house.robots(["w1", "w2"]).await;
        house.until("both are told", || heard.listen(&house).len() == 3).await;
        heard.notes.clear();
        w1.hold(Say::Finish);
        w2.hold(Say::Finish);
        house.submit("a", 1).await;
        house.until("it runs", || w1.held_back(Say::Finish) + w2.held_back(Say::Finish) == 1).await;
        heard.until(&house, &["building"]).await;
        let (builds, idle) = if w1.keeps() == 1 { (&w1, &w2) } else { (&w2, &w1) };
        idle.go();
        house.until("it is away", || !idle.attached()).await;
        builds.go();
        let told = house.comes_true(LIMIT, || heard.listen(&house).len() >= 4).await;
        assert!(told, "{:?}", heard.notes);
        assert_eq!(heard.notes[2], "last disconnect");
        assert!(
            heard.notes[0].starts_with("disconnect") && heard.notes[1].starts_with("disconnect")
        );
        // After the grace: no worker, and no build any more.
        assert_eq!(heard.notes[3], "offline");
        house.close();
    });
}

#[test]
fn s05_c03_a_persons_ping_is_one_event_that_ends_before_the_person_hears() {
    story(|| async {
        let timers = Timers { ping_timeout: Duration::from_millis(200), ..timers() };
        let house = House::open_with(timers, &[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let mut heard = Heard::from_now(&house);
        assert!(!house.handle.ping("a".into()).await.unwrap());
        assert_eq!(heard.listen(&house), ["ping no worker"]);
        heard.notes.clear();
        let [w1] = house.robots(["w1"]).await;
        heard.until(&house, &["connect w1", "idle"]).await;
        assert!(house.handle.ping("a".into()).await.unwrap());
        // No waiting here: it was told before the answer.
        assert_eq!(heard.listen(&house), ["pinging…", "ping success."]);
        let [began, ended] = &heard.rows[heard.rows.len() - 2..] else { panic!() };
        assert_eq!((began.id, began.at), (ended.id, ended.at), "one event");
        assert!(ended.ended_at.unwrap() >= ended.at);
        heard.notes.clear();
        w1.hold(Say::Pong);
        assert!(!house.handle.ping("a".into()).await.unwrap());
        assert_eq!(heard.listen(&house)[..2], ["pinging…", "ping failed."]);
        let lost = ["pinging…", "ping failed.", "disconnect w1", "last disconnect", "offline"];
        let told = house.comes_true(LIMIT, || heard.listen(&house).len() >= lost.len()).await;
        assert!(told, "{:?}", heard.notes);
        assert_eq!(heard.notes[..lost.len()], lost);
        let open = "SELECT count(*) FROM notes WHERE ended_at IS NULL";
        house.until("no ping is open", || house.number(open) == 0).await;
        house.close();
    });
}

#[test]
fn b13_s05_the_ping_of_a_start_publishes_nothing() {
    story(|| async {
        let house = House::open(&[("w1", 1)], vec![builder("a", &["w1"])]).await;
        let mut heard = Heard::from_now(&house);
        let [w1] = house.robots(["w1"]).await;
        heard.until(&house, &["connect w1", "idle"]).await;
        let ids = house.submit("a", 1).await;
        house.all_built(&ids, &[&w1]).await;
        heard.until(&house, &["building", "idle"]).await;
        house.close();
    });
}

#[test]
fn c01_a_request_to_be_built_soon_is_refused_without_a_worker() {
    story(|| async {
        let mut slow = builder("a", &["w1"]);
        slow.grace = Duration::from_secs(20);
        let house = House::open(&[("w1", 1)], vec![slow]).await;
        let soon = || async {
            let asked = vec![botmaster::messages::Submission { soon: true, ..submission("a") }];
            house.handle.submit(asked).await
        };
        assert_eq!(soon().await, Err(Refusal::NoWorker("a".into())));
        let w1 = house.robot("w1");
        w1.hold(Say::Ready);
        let attaching = || house.seat(&house.settings.builders[0], "w1") == "attaching";
        house.until("it attaches", attaching).await;
        assert_eq!(soon().await, Err(Refusal::NoWorker("a".into())), "attaching does not count");
        assert_eq!(house.requests_in(0), 0, "nothing was queued");
        w1.release(Say::Ready);
        w1.hold(Say::Finish);
        house
            .until("it is there", || house.seat(&house.settings.builders[0], "w1") == "idle")
            .await;
        assert!(soon().await.is_ok());
        house.until("it builds", || w1.held_back(Say::Finish) == 1).await;
        assert!(soon().await.is_ok(), "a busy one counts");
        w1.go();
        let orphaned = || {
            let view = house.board.builder(&"a".into()).unwrap();
            view.workers.is_empty() && view.builds.iter().any(|build| build.state == "orphaned")
        };
        house.until("it is away, within its grace", orphaned).await;
        assert!(soon().await.is_ok(), "one within its grace counts");
        house.close();
    });
}

#[test]
fn s03_fb07_a_worker_without_a_steps_command_gets_no_start_and_another_one_does() {
    story(|| async {
        let mut git = builder("a", &["w1"]);
        let mut step = git.factory.steps[0].clone();
        step.kind = StepKind::Git {
            repository: "https://git.example.org/a.git".into(),
            branch: None,
            mode: CheckoutMode::Incremental,
            submodules: false,
            depth: None,
        };
        git.factory = Arc::new(Factory { steps: vec![step] });
        let house = House::open(&[("w1", 1)], vec![git]).await;
        let [w1] = house.robots(["w1"]).await;
        house.submit("a", 1).await;
        let told = "SELECT error FROM notes WHERE text = 'failed start w1'";
        house.until("it is told why", || house.texts(told).len() == 1).await;
        assert_eq!(house.texts(told), ["lacks: the worker does not have the command `git`"]);
        house.until("it waits again", || house.requests_in(0) == 1).await;
        assert!(w1.starts().is_empty(), "nothing was sent");
        assert_eq!(house.number("SELECT max(infra_tries) FROM requests"), 1, "fb08: it counts");
        house.close();
    });
}
