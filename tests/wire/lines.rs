//! The splitter: any cutting of the stream gives the same lines.

use botmaster::core::ids::BuildId;
use botmaster::protocol::json_v1::{
    FrameLines, LineError, LogData, STDIO, WorkerFrame, decode_worker, encode_worker,
};
use bytes::{Bytes, BytesMut};
use tokio_util::codec::Decoder;

fn split(pieces: &[&[u8]], max: usize) -> Result<Vec<Vec<u8>>, LineError> {
    let mut codec = FrameLines::new(max);
    let (mut buffer, mut lines) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Some(line) = codec.decode(&mut buffer)? {
            lines.push(line.to_vec());
        }
    }
    while let Some(line) = codec.decode_eof(&mut buffer)? {
        lines.push(line.to_vec());
    }
    assert!(buffer.is_empty());
    Ok(lines)
}

#[test]
fn bytes_that_travel_as_they_are_stand_right_behind_their_line() {
    let log = LogData {
        build: BuildId(1),
        command: "c-1-0".into(),
        log: STDIO.into(),
        ch: 'o',
        offset: 7,
        text: None,
        b64: None,
        raw: Some(4),
        body: Bytes::from_static(b"\n\xff\"\n"),
        at: 0,
    };
    let mut out = Vec::new();
    encode_worker(&WorkerFrame::Log(log.clone()), &mut out);
    encode_worker(&WorkerFrame::Draining { message: "m".into() }, &mut out);
    let line: &[u8] = br#"{"t":"log","build":1,"command":"c-1-0","log":"stdio","ch":"o","offset":7,"raw":4,"at":0}"#;
    let next = b"{\"t\":\"draining\",\"message\":\"m\"}\n";
    assert_eq!(out, [line, b"\n", b"\n\xff\"\n", next].concat());
    let WorkerFrame::Log(read) = decode_worker(line).unwrap() else { panic!("a log frame") };
    assert_eq!(LogData { body: log.body.clone(), ..read }, log);
}

#[test]
fn fr01_a_stream_cut_at_every_byte_gives_the_same_lines() {
    let stream = b"{\"t\":\"a\"}\n\n{\"t\":\"b\"}\r\nrest";
    let whole = split(&[stream], 100).unwrap();
    assert_eq!(whole, [&b"{\"t\":\"a\"}"[..], b"", b"{\"t\":\"b\"}\r"], "the rest is no line");
    for cut in 0..=stream.len() {
        let (first, second) = stream.split_at(cut);
        assert_eq!(split(&[first, second], 100).unwrap(), whole, "cut at {cut}");
    }
    let single: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(split(&single, 100).unwrap(), whole);
}

#[test]
fn fn02_a_line_of_the_limit_passes_and_one_byte_more_does_not() {
    let line = |length: usize| [vec![b'x'; length], b"\n".to_vec()].concat();
    assert_eq!(split(&[&line(10)], 10).unwrap(), [vec![b'x'; 10]]);
    for length in [11, 12, 1000] {
        let line = line(length);
        let pieces: Vec<&[u8]> = line.chunks(3).collect();
        assert!(matches!(split(&pieces, 10), Err(LineError::TooLong(10))), "{length}");
        assert!(matches!(split(&[&line], 10), Err(LineError::TooLong(10))), "{length}");
    }
    assert!(matches!(split(&[&[b'x'; 11]], 10), Err(LineError::TooLong(10))), "before its end");
}

#[test]
fn the_limit_can_be_raised_between_lines() {
    let mut codec = FrameLines::new(4);
    let mut buffer = BytesMut::from(&b"four\nlonger line\n"[..]);
    assert_eq!(codec.decode(&mut buffer).unwrap().unwrap(), "four");
    codec.set_max(100);
    assert_eq!(codec.decode(&mut buffer).unwrap().unwrap(), "longer line");
}
