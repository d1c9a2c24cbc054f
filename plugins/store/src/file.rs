//! Files that are never seen half written, and never read without a bound.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What everybody may read, and a file of secrets.
pub(crate) const PUBLIC: u32 = 0o666;
pub(crate) const PRIVATE: u32 = 0o600;

/// R10: the bytes of a file, of which there may be at most `max`.
pub(crate) fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    read_open(File::open(path)?, max)
}

pub(crate) fn read_open(file: File, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::other(format!("it has more than {max} bytes")));
    }
    Ok(bytes)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A new file beside `path` with these bytes, on the disk.
fn beside(path: &Path, bytes: &[u8], mode: u32) -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().ok_or_else(|| io::Error::other("this is no name of a file"))?);
    name.push(format!(".{}-{}.new", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let new = folder(path).join(name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.inspect_err(|_| drop(std::fs::remove_file(&new)))?;
    Ok(new)
}

/// Puts these bytes in the place of whatever is there: whoever reads sees the old ones or the new ones.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = beside(path, bytes, PUBLIC)?;
    std::fs::rename(&new, path).inspect_err(|_| drop(std::fs::remove_file(&new)))?;
    File::open(folder(path))?.sync_all()
}

/// Puts these bytes where nothing is yet; fails with `AlreadyExists` where something is.
pub(crate) fn create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let new = beside(path, bytes, mode)?;
    // A link, unlike a rename, takes nobody's place.
    let linked = std::fs::hard_link(&new, path);
    let removed = std::fs::remove_file(&new);
    linked.and(removed)?;
    File::open(folder(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_are_whole_bounded_and_nobodys_place_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        create(&path, b"one", PRIVATE).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(create(&path, b"two", PRIVATE).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read(&path, 3).unwrap(), b"one");
        assert!(read(&path, 2).unwrap_err().to_string().contains("more than 2 bytes"));
        replace(&path, b"three").unwrap();
        assert_eq!(read(&path, 9).unwrap(), b"three");
        assert!(replace(&folder.path().join("no/a"), b"").is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
