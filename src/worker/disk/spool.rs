//! A command's output on the disk: records in segments.
//!
//! One writes (the keeper), one reads (the worker program), perhaps at the same
//! time. A record is written in one go and counts only whole: its checksum covers
//! all of it. Segments are named by the offset of their first byte, so that
//! what is confirmed can be dropped without moving the rest.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// Bytes of output in one segment, but for its last record.
pub const SEGMENT: u64 = 4 * 1024 * 1024;

/// Checksum, length, channel, time, offset.
const HEAD: usize = 4 + 4 + 1 + 8 + 8;

/// More than any record holds.
const MAX_RECORD: usize = 1024 * 1024;

/// Writes the output of one command.
#[derive(Debug)]
pub struct SpoolWriter {
    dir: PathBuf,
    file: Option<File>,
    /// Where the present segment begins, and how long its file is.
    segment: u64,
    length: u64,
    end: u64,
    digest: Sha256,
}

impl SpoolWriter {
    /// An empty spool in `dir`, which is there.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, file: None, segment: 0, length: 0, end: 0, digest: Sha256::new() }
    }

    /// Length of the output so far.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// SHA-256 over the output so far, in hexadecimal.
    #[must_use]
    pub fn digest(&self) -> String {
        hex(&self.digest.clone().finalize())
    }

    /// Adds a piece of output.
    ///
    /// # Errors
    /// When the disk refuses. Nothing was added then, and it may be tried again.
    pub fn append(&mut self, ch: char, at: u64, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() || self.end - self.segment >= SEGMENT {
            let path = self.dir.join(segment_name(self.end));
            let file = OpenOptions::new().append(true).create(true).open(path)?;
            file.set_len(0)?;
            (self.file, self.segment, self.length) = (Some(file), self.end, 0);
        }
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        let head = head(ch, at, self.end, bytes);
        if let Err(error) = write_record(file, &head, bytes) {
            // Half a record would hide what comes after it.
            file.set_len(self.length)?;
            return Err(error);
        }
        self.length += (HEAD + bytes.len()) as u64;
        self.end += bytes.len() as u64;
        self.digest.update(bytes);
        Ok(())
    }
}

/// Waits until all output in `dir` outlives a crash of the machine.
///
/// # Errors
/// When the disk refuses.
pub fn sync(dir: &Path) -> io::Result<()> {
    for (_, path) in segments(dir)? {
        File::open(path)?.sync_data()?;
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn head(ch: char, at: u64, offset: u64, bytes: &[u8]) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD);
    head.extend([0; 4]);
    head.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    head.push(if ch == 'e' { b'e' } else { b'o' });
    head.extend(at.to_le_bytes());
    head.extend(offset.to_le_bytes());
    let mut hash = crc32fast::Hasher::new();
    hash.update(head.get(4..).unwrap_or_default());
    hash.update(bytes);
    if let Some(place) = head.get_mut(..4) {
        place.copy_from_slice(&hash.finalize().to_le_bytes());
    }
    head
}

/// In one go, unless the disk takes only a part.
fn write_record(file: &mut File, head: &[u8], bytes: &[u8]) -> io::Result<()> {
    let written = loop {
        match file.write_vectored(&[IoSlice::new(head), IoSlice::new(bytes)]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    file.write_all(head.get(written..).unwrap_or_default())?;
    file.write_all(bytes.get(written.saturating_sub(head.len())..).unwrap_or_default())
}

fn segment_name(offset: u64) -> String {
    format!("log.{offset:020}")
}

/// All segments with their first offsets, in order.
fn segments(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let offset = name.to_str().and_then(|name| name.strip_prefix("log.")?.parse().ok());
        all.extend(offset.map(|offset: u64| (offset, entry.path())));
    }
    all.sort();
    Ok(all)
}

/// A piece of output as it was written, or the rest of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// `o` or `e`.
    pub ch: char,
    /// Milliseconds since the command started.
    pub at: u64,
    /// Of its first byte.
    pub offset: u64,
    /// What was written.
    pub bytes: Bytes,
}

/// Reads a command's output from some offset on.
#[derive(Debug)]
pub struct SpoolReader {
    dir: PathBuf,
    file: Option<File>,
    /// Where the next record begins in the file.
    place: u64,
    /// The offset that the next record must have.
    next: u64,
    /// Nothing before this is wanted.
    from: u64,
}

impl SpoolReader {
    /// A reader whose first piece begins at `from`.
    ///
    /// # Errors
    /// When the folder cannot be read, or the bytes from `from` on were dropped.
    pub fn new(dir: &Path, from: u64) -> io::Result<Self> {
        let all = segments(dir)?;
        let first = all.iter().rev().find(|(offset, _)| *offset <= from);
        let (next, file) = match first {
            Some((offset, path)) => (*offset, Some(File::open(path)?)),
            None if all.is_empty() && from == 0 => (0, None),
            None => {
                let text = format!("output from {from} on is not here any more");
                return Err(io::Error::new(io::ErrorKind::NotFound, text));
            }
        };
        Ok(Self { dir: dir.to_owned(), file, place: 0, next, from })
    }

    /// The next piece, or none when there is no whole one yet.
    ///
    /// # Errors
    /// When the disk refuses.
    #[expect(clippy::should_implement_trait, reason = "more may come after none")]
    pub fn next(&mut self) -> io::Result<Option<Piece>> {
        loop {
            let Some(piece) = self.read()? else {
                // A segment ends where the next one begins.
                let path = self.dir.join(segment_name(self.next));
                if self.place == 0 && self.file.is_some() {
                    return Ok(None);
                }
                match File::open(path) {
                    Ok(file) => (self.file, self.place) = (Some(file), 0),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(error),
                }
                continue;
            };
            let known = usize::try_from(self.from.saturating_sub(piece.offset));
            let known = known.unwrap_or(usize::MAX);
            if known < piece.bytes.len() {
                let bytes = piece.bytes.slice(known..);
                return Ok(Some(Piece { offset: piece.offset + known as u64, bytes, ..piece }));
            }
        }
    }

    fn read(&mut self) -> io::Result<Option<Piece>> {
        let Some(file) = &self.file else { return Ok(None) };
        let mut head = [0; HEAD];
        if !fill(file, &mut head, self.place)? {
            return Ok(None);
        }
        let (Some(sum), Some(length), Some(at), Some(offset)) =
            (number(&head, 0, 4), number(&head, 4, 4), number(&head, 9, 8), number(&head, 17, 8))
        else {
            return Ok(None);
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAX_RECORD || offset != self.next {
            return Ok(None);
        }
        let mut bytes = vec![0; length];
        if !fill(file, &mut bytes, self.place + HEAD as u64)? {
            return Ok(None);
        }
        let mut hash = crc32fast::Hasher::new();
        hash.update(head.get(4..).unwrap_or_default());
        hash.update(&bytes);
        if u64::from(hash.finalize()) != sum {
            return Ok(None);
        }
        self.place += (HEAD + length) as u64;
        self.next += length as u64;
        let ch = if head.get(8) == Some(&b'e') { 'e' } else { 'o' };
        Ok(Some(Piece { ch, at, offset, bytes: bytes.into() }))
    }
}

/// Fills all of `buffer`, or says that there is not so much.
fn fill(file: &File, buffer: &mut [u8], place: u64) -> io::Result<bool> {
    match file.read_exact_at(buffer, place) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn number(bytes: &[u8], from: usize, length: usize) -> Option<u64> {
    let mut whole = [0; 8];
    whole.get_mut(..length)?.copy_from_slice(bytes.get(from..from + length)?);
    Some(u64::from_le_bytes(whole))
}

/// Where the output on the disk begins and ends.
///
/// # Errors
/// When the folder cannot be read.
pub fn extent(dir: &Path) -> io::Result<(u64, u64)> {
    let all = match segments(dir) {
        Ok(all) => all,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, 0)),
        Err(error) => return Err(error),
    };
    let (Some((first, _)), Some((last, _))) = (all.first(), all.last()) else { return Ok((0, 0)) };
    let mut reader = SpoolReader::new(dir, *last)?;
    while reader.next()?.is_some() {}
    Ok((*first, reader.next))
}

/// Drops the segments that hold nothing from `confirmed` on.
///
/// # Errors
/// When the disk refuses.
pub fn trim(dir: &Path, confirmed: u64) -> io::Result<()> {
    let all = segments(dir)?;
    for (segment, next) in all.iter().zip(all.iter().skip(1)) {
        if next.0 <= confirmed {
            fs::remove_file(&segment.1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(dir: &Path, from: u64) -> Vec<u8> {
        let mut reader = SpoolReader::new(dir, from).unwrap();
        let mut bytes = Vec::new();
        while let Some(piece) = reader.next().unwrap() {
            assert_eq!(piece.offset, from + bytes.len() as u64);
            bytes.extend(piece.bytes);
        }
        bytes
    }

    #[test]
    fn what_is_written_is_read_from_any_offset_over_all_segments() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = SpoolWriter::new(dir.path().to_owned());
        let mut whole = Vec::new();
        for number in 0..150u32 {
            let piece: Vec<u8> = (0..65_536u32).map(|i| ((i * 7 + number) % 251) as u8).collect();
            writer.append(if number % 3 == 0 { 'e' } else { 'o' }, 1, &piece).unwrap();
            whole.extend(piece);
        }
        assert_eq!(extent(dir.path()).unwrap(), (0, whole.len() as u64));
        assert_eq!(segments(dir.path()).unwrap().len(), 3);
        for from in [0, 1, 65_535, 65_536, 4_194_304, 5_000_000, whole.len()] {
            assert!(all(dir.path(), from as u64) == whole[from..], "from {from}");
        }
        let digest = hex(&Sha256::digest(&whole));
        assert_eq!(writer.digest(), digest);
        trim(dir.path(), 4_194_303).unwrap();
        assert_eq!(extent(dir.path()).unwrap().0, 0, "a byte of the first is not confirmed");
        trim(dir.path(), 4_194_304).unwrap();
        assert_eq!(extent(dir.path()).unwrap(), (4_194_304, whole.len() as u64));
        assert!(SpoolReader::new(dir.path(), 0).is_err());
        assert!(all(dir.path(), 4_194_304) == whole[4_194_304..]);
    }

    #[test]
    fn a_torn_or_damaged_record_does_not_count_and_the_reader_goes_on_later() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = SpoolWriter::new(dir.path().to_owned());
        writer.append('o', 0, b"first").unwrap();
        let mut reader = SpoolReader::new(dir.path(), 0).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().bytes, "first");
        assert_eq!(reader.next().unwrap(), None);
        writer.append('e', 5, b"second").unwrap();
        assert_eq!(reader.next().unwrap().unwrap().ch, 'e');
        let path = dir.path().join(segment_name(0));
        let bytes = fs::read(&path).unwrap();
        for cut in 1..b"second".len() + HEAD {
            fs::write(&path, &bytes[..bytes.len() - cut]).unwrap();
            assert_eq!(extent(dir.path()).unwrap(), (0, 5), "{cut} bytes are missing");
        }
        let mut damaged = bytes.clone();
        *damaged.last_mut().unwrap() ^= 1;
        fs::write(&path, &damaged).unwrap();
        assert_eq!(extent(dir.path()).unwrap(), (0, 5));
    }
}
