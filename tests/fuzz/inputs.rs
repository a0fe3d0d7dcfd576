//! Making inputs: out of the golden frames, out of earlier inputs, by chance.

use botmaster::core::rng::Rng;

/// The golden frames of one side, good and bad, one a line.
pub fn golden(side: &str) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for kind in ["good", "same"] {
        let path = format!("{}/tests/wire/golden/{side}-{kind}.jsonl", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read(path).unwrap();
        all.extend(text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec));
    }
    all
}

const NUMBERS: [&str; 12] = [
    "0",
    "1",
    "2",
    "-1",
    "4294967296",
    "9007199254740993",
    "18446744073709551615",
    "18446744073709551616",
    "1e309",
    "0.5",
    "1e3",
    "-0",
];
const WORDS: [&str; 18] = [
    "a",
    "b",
    "c-1-0",
    "c-2-0",
    "c-1-1",
    "stdio",
    "../x",
    "/etc/passwd",
    "",
    "\\u0000",
    "\\ud800",
    "\u{202e}",
    "waiting",
    "running",
    "finished",
    "lost",
    "continue",
    "abandon",
];

/// One of them.
pub fn one<'a, T>(rng: &mut Rng, of: &'a [T]) -> &'a T {
    &of[rng.index(of.len())]
}

/// A new input out of the pool.
pub fn mutated(pool: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut input = if pool.is_empty() { Vec::new() } else { one(rng, pool).clone() };
    for _ in 0..=rng.index(6) {
        change(&mut input, pool, rng);
    }
    input.truncate(3 * 1024 * 1024);
    input
}

fn place(input: &[u8], rng: &mut Rng) -> usize {
    rng.index(input.len() + 1)
}

fn lines(input: &[u8]) -> Vec<&[u8]> {
    input.split_inclusive(|byte| *byte == b'\n').collect()
}

fn change(input: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut Rng) {
    match rng.index(14) {
        0 if !input.is_empty() => {
            let at = rng.index(input.len());
            input[at] ^= 1 << rng.index(8);
        }
        1 => {
            let at = place(input, rng);
            input.insert(at, *one(rng, b"\n\r\0\"\\{}[]:,0eE-\xff\xc3 "));
        }
        2 if !input.is_empty() => {
            let at = rng.index(input.len());
            let end = (at + 1 + rng.index(16)).min(input.len());
            input.drain(at..end);
        }
        // Lines go elsewhere, come twice, go away.
        3..=5 => {
            let all = lines(input);
            if all.is_empty() {
                return;
            }
            let (from, to) = (rng.index(all.len()), rng.index(all.len()));
            let mut all: Vec<Vec<u8>> = all.into_iter().map(<[u8]>::to_vec).collect();
            match rng.index(3) {
                0 => all.swap(from, to),
                1 => all.insert(to, all[from].clone()),
                _ => drop(all.remove(from)),
            }
            *input = all.concat();
        }
        // Lines of another input.
        6 | 7 if !pool.is_empty() => {
            let other = one(rng, pool).clone();
            let all = lines(&other);
            if all.is_empty() {
                return;
            }
            let from = rng.index(all.len());
            let some = all[from..(from + 1 + rng.index(4)).min(all.len())].concat();
            let own = lines(input);
            let at: usize = own[..rng.index(own.len() + 1)].iter().map(|line| line.len()).sum();
            input.splice(at..at, some);
        }
        8 | 9 => replace_number(input, rng),
        10 => replace_text(input, rng),
        11 => {
            let at = place(input, rng);
            let deep = one(rng, &[1_usize, 31, 32, 33, 5000]);
            let open = if rng.index(2) == 0 { "[" } else { "{\"a\":" };
            let close = if open == "[" { "]" } else { "}" };
            let text = format!("{}1{}", open.repeat(*deep), close.repeat(*deep));
            input.splice(at..at, text.into_bytes());
        }
        12 => {
            let at = place(input, rng);
            let long = *one(rng, &[100_usize, 16 * 1024, 64 * 1024, 1024 * 1024 + 1]);
            // The long ones are slow: they are rare.
            if long < 1024 || rng.index(20) == 0 {
                input.splice(at..at, std::iter::repeat_n(b'x', long));
            }
        }
        13 => {
            let end = place(input, rng);
            input.truncate(end);
        }
        _ => input.extend((0..rng.index(40)).map(|_| rng.index(256) as u8)),
    }
}

fn replace_number(input: &mut Vec<u8>, rng: &mut Rng) {
    let digits = |byte: &u8| byte.is_ascii_digit();
    let starts: Vec<usize> = (0..input.len())
        .filter(|&at| digits(&input[at]) && (at == 0 || !digits(&input[at - 1])))
        .collect();
    if starts.is_empty() {
        return;
    }
    let at = *one(rng, &starts);
    let end = input[at..].iter().position(|byte| !digits(byte)).map_or(input.len(), |n| at + n);
    let number =
        if rng.index(3) == 0 { rng.index(8).to_string() } else { one(rng, &NUMBERS).to_string() };
    input.splice(at..end, number.into_bytes());
}

fn replace_text(input: &mut Vec<u8>, rng: &mut Rng) {
    let quotes: Vec<usize> = (0..input.len()).filter(|&at| input[at] == b'"').collect();
    if quotes.len() < 2 {
        return;
    }
    let which = rng.index(quotes.len() - 1);
    let word = one(rng, &WORDS).as_bytes().to_vec();
    input.splice(quotes[which] + 1..quotes[which + 1], word);
}
