//! One file, line by line, in bounded memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::identity::FileOffset;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 * 1024;
/// Reads for one line before the caller gets its turn.
const CHUNKS_MAX: usize = 80;
/// Bytes that are kept of a line which is too long.
const LONG_HEAD_BYTES: usize = 64 * 1024;
/// How long whoever wrote a file that was renamed or deleted may go on writing it: until then an unfinished line may
/// still be finished, and more may come.
const ROTATE_WAIT: Duration = Duration::from_secs(5);

/// A file that is being read.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) offset: FileOffset,
    /// Since when the path is another file's, or nobody's: this one ends where it ends.
    replaced: Option<Instant>,
    buffer: Vec<u8>,
    /// Where the unread part of the buffer begins.
    from: usize,
    /// What was read of a line that is too long.
    long: Option<Long>,
    line_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Long {
    head: Vec<u8>,
    bytes: u64,
}

/// What a look for the next line found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line without its end, and where it began.
    Found { at: u64, bytes: Vec<u8> },
    /// A line longer than allowed: where it began, its beginning, and how long it was.
    TooLong { at: u64, head: Vec<u8>, length: u64 },
    /// Nothing complete for the moment.
    Nothing,
    /// It takes longer: look again.
    Busy,
    /// The file was cut or overwritten since it was last read.
    Cut,
}

impl Reader {
    pub(crate) fn new(path: PathBuf, file: File, offset: FileOffset, line_bytes_max: usize) -> Self {
        let (buffer, from, long, replaced) = (Vec::new(), 0, None, None);
        Self { path, file, offset, replaced, buffer, from, long, line_bytes_max }
    }

    /// Whether the path still leads here.
    pub(crate) fn set_replaced(&mut self, replaced: bool) {
        if replaced {
            self.replaced.get_or_insert_with(Instant::now);
        } else {
            self.replaced = None;
        }
    }

    /// Whether nobody writes here any more, as far as one can tell.
    pub(crate) fn is_final(&self) -> bool {
        self.replaced.is_some_and(|since| since.elapsed() >= ROTATE_WAIT)
    }

    /// How far the file has been read, beyond the lines that were returned.
    fn read_to(&self) -> u64 {
        let long = self.long.as_ref().map_or(0, |long| long.bytes);
        self.offset.offset + long + (self.buffer.len() - self.from) as u64
    }

    /// The next line. At the end of the file, an unfinished line counts only when `last` says that nothing follows.
    pub(crate) fn next_line(&mut self, last: bool) -> io::Result<Line> {
        let mut searched = 0;
        for _ in 0..CHUNKS_MAX {
            let unread = &self.buffer[self.from..];
            if let Some(end) = memchr::memchr(b'\n', &unread[searched..]) {
                let end = searched + end;
                let content = unread[..end].strip_suffix(b"\r").map_or(end, <[u8]>::len);
                return Ok(self.take(end + 1, content));
            }
            searched = unread.len();
            if searched > self.line_bytes_max {
                self.put_aside();
                searched = 0;
            }
            // What follows in the file belongs to what was read of it, or it is another file's.
            if !self.offset.is_whole(&self.file, self.read_to())? {
                return Ok(Line::Cut);
            }
            if self.fill()? == 0 {
                if last && (searched > 0 || self.long.is_some()) {
                    return Ok(self.take(searched, searched));
                }
                return Ok(Line::Nothing);
            }
            if self.replaced.is_some() {
                self.replaced = Some(Instant::now());
            }
        }
        Ok(Line::Busy)
    }

    /// R10: a line that is too long takes no more memory.
    fn put_aside(&mut self) {
        let long = self.long.get_or_insert_default();
        let unread = &self.buffer[self.from..];
        let room = LONG_HEAD_BYTES.saturating_sub(long.head.len());
        long.head.extend_from_slice(&unread[..unread.len().min(room)]);
        long.bytes += unread.len() as u64;
        self.buffer.clear();
        self.from = 0;
    }

    /// Takes a line of `count` bytes with its end, `content` without.
    fn take(&mut self, count: usize, content: usize) -> Line {
        let at = self.offset.offset;
        let unread = &self.buffer[self.from..];
        let bytes = &unread[..content];
        if at == 0 {
            self.offset.salt_with(self.long.as_ref().map_or(bytes, |long| &long.head));
        }
        let line = match self.long.take() {
            None if content <= self.line_bytes_max => {
                self.offset.offset += count as u64;
                Line::Found { at, bytes: bytes.to_vec() }
            }
            long => {
                let mut long = long.unwrap_or_default();
                let room = LONG_HEAD_BYTES.saturating_sub(long.head.len());
                long.head.extend_from_slice(&bytes[..content.min(room)]);
                self.offset.offset += long.bytes + count as u64;
                Line::TooLong { at, head: long.head, length: long.bytes + content as u64 }
            }
        };
        self.from += count;
        line
    }

    fn fill(&mut self) -> io::Result<usize> {
        self.buffer.drain(..self.from);
        self.from = 0;
        let (filled, from) = (self.buffer.len(), self.read_to());
        self.buffer.resize(filled + CHUNK_BYTES, 0);
        let outcome = self.file.read_at(&mut self.buffer[filled..], from);
        self.buffer.truncate(filled + *outcome.as_ref().unwrap_or(&0));
        if self.buffer.is_empty() {
            // A file that waits holds no memory.
            self.buffer = Vec::new();
        }
        let read = self.read_to();
        self.offset.learn_head(&self.file, read)?;
        outcome
    }

    /// Bytes that are there and not yet read.
    pub(crate) fn unread_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len().saturating_sub(self.offset.offset))
    }

    /// The file has other content now. What was read of an unfinished line is in its copy, if there is one.
    pub(crate) fn begin_anew(&mut self) {
        self.offset.begin_anew();
        self.buffer = Vec::new();
        self.from = 0;
        self.long = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn reader(content: &[u8], line_bytes_max: usize) -> (tempfile::TempDir, Reader) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, content).unwrap();
        let file = File::open(&path).unwrap();
        let offset = FileOffset::new("f", &file).unwrap();
        (directory, Reader::new(path, file, offset, line_bytes_max))
    }

    fn found(at: u64, bytes: &str) -> Line {
        Line::Found { at, bytes: bytes.as_bytes().to_vec() }
    }

    #[test]
    fn lines_end_with_either_ending_and_the_last_one_when_told() {
        let (_directory, mut reader) = reader(b"a\r\n\nlast", 100);
        assert_eq!(reader.next_line(false).unwrap(), found(0, "a"));
        assert_eq!(reader.next_line(false).unwrap(), found(3, ""));
        assert_eq!(reader.next_line(false).unwrap(), Line::Nothing);
        let mut append = std::fs::OpenOptions::new().append(true).open(&reader.path).unwrap();
        append.write_all(b" one").unwrap();
        assert_eq!(reader.next_line(true).unwrap(), found(4, "last one"));
        assert_eq!(reader.next_line(true).unwrap(), Line::Nothing);
    }

    #[test]
    fn a_line_that_is_too_long_takes_no_more_memory_than_allowed() {
        let mut content = b"short\n".to_vec();
        content.extend(vec![b'x'; 50_000_000]);
        content.extend(b"\r\nnext\n");
        content.extend(vec![b'y'; 3_000]);
        let (_directory, mut reader) = reader(&content, 1000);
        assert_eq!(reader.next_line(false).unwrap(), found(0, "short"));
        let mut looks = 0;
        let long = loop {
            match reader.next_line(false).unwrap() {
                Line::Busy => looks += 1,
                other => break other,
            }
            assert!(reader.buffer.capacity() <= 4 * CHUNK_BYTES);
        };
        assert_eq!(long, Line::TooLong { at: 6, head: vec![b'x'; LONG_HEAD_BYTES], length: 50_000_000 });
        assert!(looks > 0, "others have their turn meanwhile");
        assert_eq!(reader.next_line(false).unwrap(), found(50_000_008, "next"));
        assert_eq!(reader.next_line(false).unwrap(), Line::Nothing);
        let last = Line::TooLong { at: 50_000_013, head: vec![b'y'; 3000], length: 3000 };
        assert_eq!(reader.next_line(true).unwrap(), last);
        assert_eq!((reader.next_line(true).unwrap(), reader.unread_bytes().unwrap()), (Line::Nothing, 0));
    }

    #[test]
    fn a_line_of_just_the_allowed_length_is_a_line() {
        let (_directory, mut reader) = reader(b"12345\n123456\n12345\r\n", 5);
        assert_eq!(reader.next_line(false).unwrap(), found(0, "12345"));
        assert_eq!(
            reader.next_line(false).unwrap(),
            Line::TooLong { at: 6, head: b"123456".to_vec(), length: 6 }
        );
        assert_eq!(reader.next_line(false).unwrap(), found(13, "12345"));
    }

    #[test]
    fn a_truncated_file_begins_anew_and_one_that_grows_does_not() {
        let (_directory, mut reader) = reader(b"one\ntwo\n", 100);
        while reader.next_line(false).unwrap() != Line::Nothing {}
        let mut append = std::fs::OpenOptions::new().append(true).open(&reader.path).unwrap();
        append.write_all(b"unfini").unwrap();
        assert_eq!(reader.next_line(false).unwrap(), Line::Nothing, "it has grown");
        std::fs::write(&reader.path, b"eno\nowt\nthree\n").unwrap();
        let lane = reader.offset.lane();
        assert_eq!(reader.next_line(false).unwrap(), Line::Cut, "no line of two files");
        assert_eq!(reader.next_line(false).unwrap(), Line::Cut);
        reader.begin_anew();
        assert_eq!(reader.next_line(false).unwrap(), found(0, "eno"));
        assert_ne!(reader.offset.lane(), lane);
        // Shorter, with the same beginning.
        while reader.next_line(false).unwrap() != Line::Nothing {}
        std::fs::write(&reader.path, b"eno\nowt\n").unwrap();
        assert_eq!(reader.next_line(false).unwrap(), Line::Cut);
    }

    #[test]
    fn what_was_never_stored_is_told_apart_by_its_first_line() {
        let lane = |content: &[u8], lines: usize| {
            let (_directory, mut reader) = reader(content, 100);
            reader.offset.device = 1;
            reader.offset.inode = 1;
            reader.offset.begin_anew();
            for _ in 0..lines {
                // Other people's inodes: the look for a cut would not know them.
                reader.buffer = content.to_vec();
                reader.from = usize::try_from(reader.offset.offset).unwrap();
                reader.next_line(false).unwrap();
            }
            reader.offset.lane()
        };
        assert_eq!(lane(b"one\ntwo\n", 1), lane(b"one\ntwo\nthree\n", 3), "as often as it is read");
        assert_ne!(lane(b"one\ntwo\n", 1), lane(b"other\ntwo\n", 1));
    }
}
