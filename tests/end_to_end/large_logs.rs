//! Logs that are larger than anybody should have in memory.

use std::io::Read;
use std::time::Duration;

use crate::kit::{Master, Place, builder, until, waiting, within, worker};

/// Bytes that the step writes, in lines of 16.
const SIZE: u64 = 128 << 20;

fn peak(master: &Master<'_>) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", master.process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// The log's bytes, or a part of them: status, `Content-Range`, and the body.
fn get(master: &Master<'_>, range: Option<&str>) -> (u16, Option<String>, impl Read + use<>) {
    let url = format!("{}/api/v2/builders/b/builds/1/steps/0/logs/stdio/raw_inline", master.url());
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .accept_encoding("identity")
        .proxy(None)
        .build()
        .into();
    let mut request = agent.get(url);
    if let Some(range) = range {
        request = request.header("range", range);
    }
    let answer = request.call().unwrap();
    let status = answer.status().as_u16();
    let part = answer.headers().get("content-range");
    let part = part.map(|value| value.to_str().unwrap().to_owned());
    (status, part, answer.into_body().into_reader())
}

fn text(mut body: impl Read) -> String {
    let mut text = String::new();
    body.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn fl09_a_large_log_is_streamed_with_ranges_while_it_grows() {
    let line = format!("yes 0123456789abcde | head -c {SIZE}; {}; echo end", waiting("go"));
    let place = Place::new(&format!("{}{}", worker("w", 1), builder("b", "w", &[&line])));
    let master = place.master();
    let _worker = master.worker("w", 1);
    master.force("b");
    master.running("b", 1);
    // It grows: what there is can be read from any place on.
    let grown = until("there is much of it", || {
        let (status, part, body) = get(&master, Some("bytes=-16"));
        let all = part?;
        let last = all.strip_prefix("bytes ")?.split_once('/')?;
        assert_eq!((status, last.1), (206, "*"), "{all}");
        assert_eq!(text(body).len(), 16);
        let last: u64 = last.0.split_once('-')?.1.parse().ok()?;
        (last > 4 << 20).then_some(last + 1)
    });
    let (status, part, body) = get(&master, Some(&format!("bytes=1000000-{}", 1_000_000 + 31)));
    assert_eq!((status, part.as_deref()), (206, Some("bytes 1000000-1000031/*")));
    let some = text(body);
    assert!(some.contains("0123456789abcde\n") && some.len() == 32, "{some}");

    let head = "Builder: b\nBuild number: 1\nWorker name: w\n";
    let before = until("all of it is there", || {
        let (_, part, body) = get(&master, Some("bytes=0-"));
        drop(body);
        let last: u64 = part?.strip_prefix("bytes 0-")?.split_once('/')?.0.parse().ok()?;
        (last >= SIZE + head.len() as u64).then_some(last + 1)
    });
    assert!(before > grown);
    let memory = peak(&master);
    // Two readers at once, in pieces.
    let read = |master: &Master<'_>| {
        let (status, _, mut body) = get(master, None);
        std::thread::spawn(move || {
            let (mut all, mut sum) = (0_u64, 0_u64);
            let mut buffer = vec![0; 1 << 16];
            loop {
                let count = body.read(&mut buffer).unwrap();
                if count == 0 {
                    return (status, all, sum);
                }
                all += count as u64;
                sum += buffer[..count].iter().filter(|byte| **byte == b'\n').count() as u64;
            }
        })
    };
    let readers = [read(&master), read(&master)];
    for reader in readers {
        let (status, all, lines) = reader.join().unwrap();
        assert_eq!((status, all), (200, before));
        assert!(lines >= SIZE / 16 + 3);
    }
    let grew = peak(&master).saturating_sub(memory);
    assert!(grew < 24 << 20, "reading took {grew} bytes of memory");

    place.open("go");
    master.ended_as("b", 1, 0);
    let (status, part, body) = get(&master, Some("bytes=-60"));
    let part = part.unwrap();
    let (bytes, all) = part.split_once('/').unwrap();
    let all: u64 = all.parse().expect("its length is known now");
    assert_eq!((status, bytes), (206, &*format!("bytes {}-{}", all - 60, all - 1)));
    assert!(all > before && text(body).contains("\nend\n"));
    let (status, part, _) = get(&master, Some(&format!("bytes={all}-")));
    assert_eq!((status, part), (416, Some(format!("bytes */{all}"))));
    let (status, part, body) = get(&master, Some("bytes=9-12"));
    assert_eq!((status, part), (206, Some(format!("bytes 9-12/{all}"))));
    assert_eq!(text(body), "b\nBu");
    println!("peak before reading {memory}, grew by {grew}");
}

#[test]
fn fl05_100_mib_in_one_line_and_bytes_that_are_no_text_are_kept_exactly() {
    let long = 100_u64 << 20;
    // One line of backspaces, a progress bar, NUL bytes, and no UTF-8.
    let line = format!(
        "head -c {long} /dev/zero | tr '\\000' '\\010'; printf '\\n'; \
         for i in 1 2 3; do printf '%s0%%\\r' $i; done; printf '\\n\\000a\\000\\n\\377\\376x\\n'"
    );
    let place = Place::new(&format!("{}{}", worker("w", 1), builder("b", "w", &[&line])));
    let master = place.master();
    let _worker = master.worker("w", 1);
    let before = peak(&master);
    master.force("b");
    let ended = || master.build("b", 1).filter(|build| build["complete"] == true);
    let ended = within(Duration::from_secs(240), ended).expect("the build ends");
    assert_eq!(ended["results"], 0);
    let grew = peak(&master).saturating_sub(before);
    assert!(grew < 64 << 20, "receiving took {grew} bytes of memory");

    let (_, _, mut body) = get(&master, None);
    let mut all = Vec::new();
    body.read_to_end(&mut all).unwrap();
    let begin = all.iter().position(|byte| *byte == 8).unwrap();
    let (bar, rest) = all[begin..].split_at(usize::try_from(long).unwrap());
    assert!(bar.iter().all(|byte| *byte == 8));
    let end = b"\n10%\r20%\r30%\r\n\0a\0\n\xff\xfex\n";
    assert_eq!(&rest[..end.len()], end);
    // People see it cut, with replacement characters.
    let lines = master.log("b", 1, 0, 'o');
    assert!(lines[0].ends_with("[…line cut: the raw log has all of it]"));
    assert!(lines[0].len() < 70_000, "{} bytes shown", lines[0].len());
    assert_eq!(&lines[1..], ["10%", "20%", "30%", "\0a\0", "\u{fffd}\u{fffd}x"]);
    let grew = peak(&master).saturating_sub(before);
    assert!(grew < 80 << 20, "showing took {grew} bytes of memory");
}
