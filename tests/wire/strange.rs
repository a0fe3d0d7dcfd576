//! The decoder under strange input: it answers, and never panics.

use botmaster::core::rng::Rng;

use crate::golden;

fn all_lines() -> Vec<(&'static str, Vec<u8>)> {
    let mut lines = Vec::new();
    for side in ["worker", "master"] {
        for line in golden::read(&format!("{side}-good.jsonl")) {
            lines.push((side, line.into_bytes()));
        }
    }
    lines
}

/// Every byte of every golden frame: left out, doubled, and replaced by each of
/// the bytes that mean something to a reader of JSON.
#[test]
fn fn16_golden_frames_with_one_byte_changed_never_panic() {
    let (mut read, mut refused) = (0u64, 0u64);
    let mut try_line = |side: &str, line: &[u8]| match golden::again(side, line) {
        Ok(_) => read += 1,
        Err(_) => refused += 1,
    };
    for (side, line) in all_lines() {
        for place in 0..line.len() {
            let mut changed = line.clone();
            changed.remove(place);
            try_line(side, &changed);
            changed.insert(place, line[place]);
            changed.insert(place, line[place]);
            try_line(side, &changed);
            changed.remove(place);
            for byte in *b"\0\"\\{}[],:0-9eE.nt u\x7f\x80\xc3\xff" {
                changed[place] = byte;
                try_line(side, &changed);
            }
            try_line(side, &line[..place]);
        }
    }
    assert!(read > 1000 && refused > 10_000, "{read} read, {refused} refused");
}

/// What is read after a change means the same after another round.
#[test]
fn fn16_golden_frames_with_many_changes_never_panic_and_stay_stable() {
    let lines = all_lines();
    let mut rng = Rng::seeded(7);
    let mut read = 0;
    for _ in 0..20_000 {
        let (side, line) = &lines[rng.index(lines.len())];
        let mut line = line.clone();
        for _ in 0..=rng.index(6) {
            let place = rng.index(line.len());
            match rng.index(4) {
                0 => line[place] = rng.index(256) as u8,
                1 => line.truncate(place.max(1)),
                2 => {
                    let (_, other) = &lines[rng.index(lines.len())];
                    let from = rng.index(other.len());
                    let piece: Vec<u8> = other[from..].iter().take(20).copied().collect();
                    line.splice(place..place, piece);
                }
                _ => line[place] ^= 1 << rng.index(8),
            }
        }
        if let Ok(text) = golden::again(side, &line) {
            assert_eq!(golden::again(side, text.as_bytes()), Ok(text.clone()));
            read += 1;
        }
    }
    assert!(read > 100, "{read} were still frames");
}

#[test]
fn fn03_monstrous_lines_are_refused_quickly() {
    let begun = std::time::Instant::now();
    let big = 1024 * 1024;
    let monsters = [
        vec![b'['; big],
        vec![b'{'; big],
        b"{\"a\":".repeat(big / 5),
        [b"{\"t\":\"pong\",\"".to_vec(), vec![b'k'; big], b"\":1}".to_vec()].concat(),
        [b"{\"t\":\"pong\",\"id\":".to_vec(), vec![b'9'; big], b"}".to_vec()].concat(),
        [b"{\"t\":\"".to_vec(), vec![b'x'; big], b"\"}".to_vec()].concat(),
        [b"{\"t\":\"pong\",\"x\":[".to_vec(), b"0,".repeat(big / 2), b"0]}".to_vec()].concat(),
        vec![b'"'; big],
        vec![b'\\'; big],
        vec![0; big],
    ];
    for monster in monsters {
        let error = golden::again("worker", &monster).expect_err("no frame");
        assert!(error.to_string().len() < 300, "{error}");
    }
    // Generous: a test machine may be busy; a quadratic reader takes minutes.
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
}
