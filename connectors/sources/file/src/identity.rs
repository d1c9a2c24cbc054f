//! Which file is which: names change when logs are rotated, device and inode are used again, and the first bytes of a
//! log seldom change. All three together tell.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use serde::{Deserialize, Serialize};

/// So many bytes at the beginning of a file are remembered.
const HEAD_BYTES_MAX: usize = 256;

/// The stored offset of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileOffset {
    pub(crate) v: u8,
    /// Where the file was when it was last read, for people and for finding it again.
    pub(crate) path: String,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// Bytes remembered of the beginning, and their hash.
    pub(crate) head_bytes: usize,
    pub(crate) head_hash: u64,
    /// How often the file began anew under the same inode (copy and truncate).
    pub(crate) generation: u32,
    /// Bytes read: the next line begins here.
    pub(crate) offset: u64,
    /// The hash of the first line's beginning: it tells apart what stood under one inode and generation at two times,
    /// where the first was never stored.
    #[serde(default)]
    pub(crate) salt: u64,
}

impl FileOffset {
    /// The offset of a file that has not been read.
    pub(crate) fn new(path: &str, file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            v: 1,
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
            head_bytes: 0,
            head_hash: hash(&[]),
            generation: 0,
            offset: 0,
            salt: 0,
        })
    }

    /// The source partition under which it is stored.
    pub(crate) fn partition(&self) -> String {
        format!("file {}:{}", self.device, self.inode)
    }

    /// Whether `file` is what this offset was stored for: same device and inode, and its beginning is unchanged.
    pub(crate) fn is_of(&self, file: &File) -> io::Result<bool> {
        self.is_whole(file, self.offset)
    }

    /// As [`Self::is_of`], for a file of which `read` bytes have been read.
    pub(crate) fn is_whole(&self, file: &File, read: u64) -> io::Result<bool> {
        let metadata = file.metadata()?;
        if (metadata.dev(), metadata.ino()) != (self.device, self.inode) {
            return Ok(false);
        }
        let head = read_head(file, self.head_bytes)?;
        Ok(metadata.len() >= read && head.len() == self.head_bytes && hash(&head) == self.head_hash)
    }

    /// Remembers more of the beginning of a file of which `read` bytes have been read.
    pub(crate) fn learn_head(&mut self, file: &File, read: u64) -> io::Result<()> {
        let known = usize::try_from(read).unwrap_or(HEAD_BYTES_MAX).min(HEAD_BYTES_MAX);
        if known > self.head_bytes {
            let head = read_head(file, known)?;
            self.head_bytes = head.len();
            self.head_hash = hash(&head);
        }
        Ok(())
    }

    /// The first line, or its beginning.
    pub(crate) fn salt_with(&mut self, line: &[u8]) {
        self.salt = hash(&line[..line.len().min(HEAD_BYTES_MAX)]);
    }

    /// The same file with new content.
    pub(crate) fn begin_anew(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.offset = 0;
        self.salt = 0;
        self.head_bytes = 0;
        self.head_hash = hash(&[]);
    }

    /// The lane of this file's records.
    pub(crate) fn lane(&self) -> u64 {
        let mut bytes = Vec::with_capacity(28);
        bytes.extend_from_slice(&self.device.to_be_bytes());
        bytes.extend_from_slice(&self.inode.to_be_bytes());
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        bytes.extend_from_slice(&self.salt.to_be_bytes());
        hash(&bytes)
    }
}

fn read_head(file: &File, bytes: usize) -> io::Result<Vec<u8>> {
    let mut head = vec![0; bytes.min(HEAD_BYTES_MAX)];
    let mut filled = 0;
    while filled < head.len() {
        match file.read_at(&mut head[filled..], filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    head.truncate(filled);
    Ok(head)
}

/// FNV-1a: the same in every version.
fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
