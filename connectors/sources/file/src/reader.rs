//! One file, line by line, in bounded memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::identity::FileOffset;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// A file that is being read.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) offset: FileOffset,
    /// Whether the path has been given to another file: this one ends where it ends.
    pub(crate) replaced: bool,
    buffer: Vec<u8>,
    /// Where the unread part of the buffer begins.
    from: usize,
    line_bytes_max: usize,
}

/// What a look for the next line found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line without its end, and where it began.
    Found { at: u64, bytes: Vec<u8> },
    /// Nothing complete for the moment.
    Nothing,
    /// A line longer than allowed begins here.
    TooLong { at: u64 },
}

impl Reader {
    pub(crate) fn new(path: PathBuf, file: File, offset: FileOffset, line_bytes_max: usize) -> Self {
        Self { path, file, offset, replaced: false, buffer: Vec::new(), from: 0, line_bytes_max }
    }

    /// The next line. At the end of the file, an unfinished line counts only when `last` says that nothing follows.
    pub(crate) fn next_line(&mut self, last: bool) -> io::Result<Line> {
        let mut searched = 0;
        loop {
            let unread = &self.buffer[self.from..];
            if let Some(end) = memchr::memchr(b'\n', &unread[searched..]) {
                let end = searched + end;
                let bytes = unread[..end].strip_suffix(b"\r").unwrap_or(&unread[..end]).to_vec();
                if bytes.len() > self.line_bytes_max {
                    return Ok(Line::TooLong { at: self.offset.offset });
                }
                return Ok(self.take(end + 1, bytes));
            }
            if unread.len() > self.line_bytes_max {
                return Ok(Line::TooLong { at: self.offset.offset });
            }
            searched = unread.len();
            if self.fill()? == 0 {
                if last && searched > 0 {
                    let bytes = self.buffer[self.from..].to_vec();
                    return Ok(self.take(searched, bytes));
                }
                return Ok(Line::Nothing);
            }
        }
    }

    fn take(&mut self, count: usize, bytes: Vec<u8>) -> Line {
        let at = self.offset.offset;
        self.from += count;
        self.offset.offset += count as u64;
        Line::Found { at, bytes }
    }

    fn fill(&mut self) -> io::Result<usize> {
        self.buffer.drain(..self.from);
        self.from = 0;
        let filled = self.buffer.len();
        self.buffer.resize(filled + CHUNK_BYTES, 0);
        let outcome = self.file.read_at(&mut self.buffer[filled..], self.offset.offset + filled as u64);
        self.buffer.truncate(filled + *outcome.as_ref().unwrap_or(&0));
        if self.buffer.is_empty() {
            // A file that waits holds no memory.
            self.buffer = Vec::new();
        }
        outcome
    }

    /// Bytes that are there and not yet read.
    pub(crate) fn unread_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len().saturating_sub(self.offset.offset))
    }

    /// Begins anew if the file has been cut or overwritten; says whether it has.
    pub(crate) fn notice_truncation(&mut self) -> io::Result<bool> {
        if self.offset.is_of(&self.file)? {
            return Ok(false);
        }
        self.offset.begin_anew();
        self.buffer = Vec::new();
        self.from = 0;
        Ok(true)
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
        let (_directory, mut reader) = reader(&vec![b'x'; 5_000_000], 1000);
        assert_eq!(reader.next_line(false).unwrap(), Line::TooLong { at: 0 });
        assert!(reader.buffer.capacity() <= 4 * CHUNK_BYTES);
    }

    #[test]
    fn a_truncated_file_begins_anew_and_one_that_grows_does_not() {
        let (_directory, mut reader) = reader(b"one\ntwo\n", 100);
        while reader.next_line(false).unwrap() != Line::Nothing {}
        reader.offset.learn_head(&reader.file).unwrap();
        assert!(!reader.notice_truncation().unwrap());
        std::fs::write(&reader.path, b"eno\nowt\nthree\n").unwrap();
        let lane = reader.offset.lane();
        assert!(reader.notice_truncation().unwrap(), "longer, but with another beginning");
        assert_eq!(reader.next_line(false).unwrap(), found(0, "eno"));
        assert_ne!(reader.offset.lane(), lane);
    }
}
