//! Which log of a partition is right where several directories have one: a move was not ended, or a directory is back that
//! was out while the partition was made anew elsewhere.

use std::sync::Arc;

use towpath_log::{Log, LogDir, LogError, Replaces};
use towpath_types::{Offset, TopicId, TopicPartition};

use crate::LogDirs;

impl LogDirs {
    /// Ends what an earlier process has left half done, as far as the directories say it themselves: a partition that is in
    /// two of them was being moved, and the new place says that it has everything; or it was made anew while the other one
    /// could not be used. Returns the logs that are gone by that. What this cannot tell is not used until
    /// [`Self::remove_strays`] has asked the metadata. Called before anything is appended.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn settle_moves(&self) -> Result<Vec<Arc<Log>>, LogError> {
        let dirs = self.all();
        let mut removed = Vec::new();
        for (at, dir) in dirs.iter().enumerate() {
            for other in &dirs[at + 1..] {
                for partition in dir.partitions_in_both(other) {
                    match old_one(&partition, dir, other)? {
                        Some(old) => {
                            tracing::info!(%partition, from = %old.path().display(), "removed: another directory has it in its place");
                            removed.extend(old.get(&partition));
                            old.delete(&partition)?;
                        }
                        None => {
                            self.twice.write().entry(partition).or_default();
                        }
                    }
                }
            }
        }
        self.look_again();
        if dirs.len() > 1 {
            let ids: Vec<TopicId> = dirs.iter().map(|dir| dir.directory_id()).collect();
            for dir in dirs {
                dir.forget_moves(|id| ids.contains(&id))?;
            }
        }
        Ok(removed)
    }

    /// Removes the logs that are not this broker's any more, by what the metadata say of their topics' ids. Of a partition in
    /// several directories that may leave the right one. Called before the metadata's partitions are opened.
    ///
    /// # Errors
    /// [`LogError`] of the first directory whose files remain.
    pub fn remove_strays(&self, is_ours: impl Fn(&Log) -> bool) -> Result<(), LogError> {
        let mut result = Ok(());
        for dir in self.online() {
            let strays: Vec<TopicPartition> =
                dir.logs().iter().filter(|log| !is_ours(log)).map(|log| log.partition().clone()).collect();
            if !strays.is_empty() {
                result = result.and(dir.delete_all(&strays));
            }
        }
        self.look_again();
        let unclear: Vec<TopicPartition> = self.twice.read().keys().cloned().collect();
        for partition in unclear {
            tracing::error!(problem = self.why_twice(&partition), "a partition is offline");
        }
        result
    }

    /// Looks which partitions are in several directories yet.
    fn look_again(&self) {
        self.twice.write().retain(|partition, logs| {
            *logs = self.all().iter().filter_map(|dir| dir.get(partition)).collect();
            logs.len() > 1
        });
    }

    /// Why a partition is offline that is in several directories; `None` where it is not.
    pub(crate) fn why_twice(&self, partition: &TopicPartition) -> Option<String> {
        let twice = self.twice.read();
        let places: Vec<String> =
            twice.get(partition)?.iter().map(|log| log.dir().display().to_string()).collect();
        Some(format!(
            "{partition} is in {}, and nobody can tell which is right; stop the broker, and keep one of them",
            places.join(" and in ")
        ))
    }

    /// Whether a partition of this topic is in several directories.
    pub(crate) fn is_twice(&self, partition: &TopicPartition, topic_id: TopicId) -> bool {
        let twice = self.twice.read();
        twice.get(partition).is_some_and(|logs| logs.iter().any(|log| log.topic_id() == topic_id))
    }
}

/// The directory whose log of a partition is to go, as far as the two say it themselves.
fn old_one<'a>(
    partition: &TopicPartition,
    dir: &'a Arc<LogDir>,
    other: &'a Arc<LogDir>,
) -> Result<Option<&'a Arc<LogDir>>, LogError> {
    let topic_id = |dir: &LogDir| dir.get(partition).map(|log| log.topic_id());
    if topic_id(dir) != topic_id(other) {
        // The metadata know which topic there is.
        return Ok(None);
    }
    Ok(match (dir.replaces(partition, other)?, other.replaces(partition, dir)?) {
        (Replaces::Yes, Replaces::Nothing) | (Replaces::Nothing, Replaces::NotAnyMore) => Some(other),
        (Replaces::Nothing, Replaces::Yes) | (Replaces::NotAnyMore, Replaces::Nothing) => Some(dir),
        (Replaces::Nothing, Replaces::Nothing) => {
            match (dir.was_made_without(partition, other)?, other.was_made_without(partition, dir)?) {
                (true, false) => Some(of_less_use(partition, other, dir)),
                (false, true) => Some(of_less_use(partition, dir, other)),
                _ => None,
            }
        }
        _ => None,
    })
}

/// The older of two logs is of no use, except where the one that was made anew has had nothing yet: it may be that nobody else
/// has the partition, and a follower with an old log is one that catches up.
fn of_less_use<'a>(
    partition: &TopicPartition,
    older: &'a Arc<LogDir>,
    newer: &'a Arc<LogDir>,
) -> &'a Arc<LogDir> {
    let was_used = newer.get(partition).is_some_and(|log| log.log_end_offset() > Offset::ZERO);
    if was_used { older } else { newer }
}
