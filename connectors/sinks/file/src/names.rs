//! The names of a partition's files. Topic names hold nothing that a file name could not.

use std::path::{Path, PathBuf};

use towpath_types::TopicPartition;

const DIGITS: usize = 20;
const SUFFIX: &str = ".jsonl";
const OPEN_SUFFIX: &str = ".jsonl.inprogress";

/// The file that holds the offsets from `first` to `last`.
pub(crate) fn finished(directory: &Path, partition: &TopicPartition, first: i64, last: i64) -> PathBuf {
    directory.join(format!("{partition}-{first:0DIGITS$}-{last:0DIGITS$}{SUFFIX}"))
}

/// The file that is being written.
pub(crate) fn open(directory: &Path, partition: &TopicPartition, first: i64) -> PathBuf {
    directory.join(format!("{partition}-{first:0DIGITS$}{OPEN_SUFFIX}"))
}

/// How far the partition has been written.
pub(crate) fn state(directory: &Path, partition: &TopicPartition) -> PathBuf {
    directory.join(format!(".towpath-{partition}.json"))
}

/// What is locked while owner and files of the partition change.
pub(crate) fn lock(directory: &Path, partition: &TopicPartition) -> PathBuf {
    directory.join(format!(".towpath-{partition}.lock"))
}

/// What a file of the partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Covers these offsets.
    Finished { first: i64, last: i64 },
    /// Begins with this offset.
    Open { first: i64 },
}

/// Reads a name; `None` if it is no file of this partition.
pub(crate) fn parse(name: &str, partition: &TopicPartition) -> Option<Found> {
    let rest = name.strip_prefix(&partition.to_string())?.strip_prefix('-')?;
    let offset = |text: &str| {
        let legal = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
        if legal { text.parse().ok() } else { None }
    };
    if let Some(first) = rest.strip_suffix(OPEN_SUFFIX) {
        return Some(Found::Open { first: offset(first)? });
    }
    let (first, last) = rest.strip_suffix(SUFFIX)?.split_once('-')?;
    Some(Found::Finished { first: offset(first)?, last: offset(last)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use towpath_types::TopicName;

    #[test]
    fn names_are_read_back_and_partitions_are_kept_apart() {
        let partition = |topic: &str, number| TopicPartition::new(TopicName::new(topic).unwrap(), number);
        let (a, b) = (partition("a", 0), partition("a-0", 1));
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let done = name(finished(Path::new("x"), &b, 5, 99));
        assert_eq!(done, "a-0-1-00000000000000000005-00000000000000000099.jsonl");
        assert_eq!(parse(&done, &b), Some(Found::Finished { first: 5, last: 99 }));
        assert_eq!(parse(&done, &a), None);
        let writing = name(open(Path::new("x"), &a, i64::MAX));
        assert_eq!(parse(&writing, &a), Some(Found::Open { first: i64::MAX }));
        assert_eq!(parse(&writing, &b), None);
        assert_eq!(parse("a-0-99999999999999999999-99999999999999999999.jsonl", &a), None);
    }
}
