//! A source's small memory (`state`): it travels with the offsets, and is durable when they are.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;
use towpath_api::{ConnectorError, SourceOffsets};
use towpath_types::limits::{
    PLUGIN_STATE_BYTES_MAX, PLUGIN_STATE_KEY_BYTES_MAX, PLUGIN_STATE_VALUE_BYTES_MAX,
};

use super::bindings::towpath::plugin::state as wit;
use super::bindings::towpath::plugin::types::Error;
use super::grants::refused;
use super::outside::wrong;
use super::state::State;

/// What the names of source partitions begin with that are Towpath's own.
pub(crate) const RESERVED: &str = "towpath:";

/// Where a task's memory stands among the offsets of its pipeline.
fn prefix(task: u32) -> String {
    format!("{RESERVED}state:{task}:")
}

/// The memory of one task.
#[derive(Default)]
pub(crate) struct Memory {
    entries: BTreeMap<String, Vec<u8>>,
    bytes: usize,
    /// What is not among the offsets yet.
    changed: BTreeMap<String, Option<Vec<u8>>>,
}

impl Memory {
    /// The memory of a task out of stored offsets. Other tasks' is not seen.
    pub(crate) fn load(task: u32, stored: &SourceOffsets) -> Result<Self, ConnectorError> {
        let (mut memory, prefix) = (Self::default(), prefix(task));
        for (name, document) in &stored.partitions {
            let Some(key) = name.strip_prefix(&prefix) else { continue };
            let value = document.as_str().and_then(|text| STANDARD.decode(text).ok()).ok_or_else(|| {
                // R7: it is never replaced by nothing.
                let message = format!("the stored state of the plugin under `{key}` cannot be read");
                ConnectorError::terminal("PLUGIN_OFFSETS", message)
            })?;
            memory.bytes += key.len() + value.len();
            memory.entries.insert(key.to_owned(), value);
        }
        Ok(memory)
    }

    /// Adds what has changed to the offsets of a poll.
    pub(crate) fn save(&mut self, task: u32, offsets: &mut SourceOffsets) {
        for (key, value) in std::mem::take(&mut self.changed) {
            let document = value.map_or(Json::Null, |value| Json::String(STANDARD.encode(value)));
            offsets.partitions.insert(format!("{}{key}", prefix(task)), document);
        }
    }

    fn set(&mut self, key: String, value: Option<Vec<u8>>) -> Result<(), Error> {
        let too_large = |what: &str, max: usize| {
            Err(wrong(
                "PLUGIN_STATE",
                format!("{what} of the plugin's state is too large: {max} bytes are the most"),
            ))
        };
        if key.len() > PLUGIN_STATE_KEY_BYTES_MAX {
            return too_large("a key", PLUGIN_STATE_KEY_BYTES_MAX);
        }
        let size = |value: &Vec<u8>| key.len() + value.len();
        let old = self.entries.get(&key).map_or(0, size);
        let new = value.as_ref().map_or(0, size);
        if value.as_ref().is_some_and(|value| value.len() > PLUGIN_STATE_VALUE_BYTES_MAX) {
            return too_large("a value", PLUGIN_STATE_VALUE_BYTES_MAX);
        }
        if self.bytes - old + new > PLUGIN_STATE_BYTES_MAX && new > old {
            return too_large("the whole", PLUGIN_STATE_BYTES_MAX);
        }
        self.bytes = self.bytes - old + new;
        // A key that comes and goes leaves a trace until the next poll is durable: those are as many as fit once.
        if self.changed.len() >= PLUGIN_STATE_BYTES_MAX / PLUGIN_STATE_KEY_BYTES_MAX
            && !self.changed.contains_key(&key)
        {
            return too_large("what one poll changes", PLUGIN_STATE_BYTES_MAX);
        }
        match &value {
            Some(value) => self.entries.insert(key.clone(), value.clone()),
            None => self.entries.remove(&key),
        };
        self.changed.insert(key, value);
        Ok(())
    }
}

impl State {
    fn may_remember(&self) -> Result<(), Error> {
        self.may_reach()?;
        if self.plugin.grants.state {
            return Ok(());
        }
        Err(refused(&self.plugin.name, "keep a state", "state: true"))
    }
}

impl wit::Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        Ok(self.may_remember().map(|()| self.memory.entries.get(&key).cloned()))
    }

    fn set(&mut self, key: String, value: Option<Vec<u8>>) -> wasmtime::Result<Result<(), Error>> {
        Ok(self.may_remember().and_then(|()| self.memory.set(key, value)))
    }

    fn keys(&mut self) -> wasmtime::Result<Result<Vec<String>, Error>> {
        Ok(self.may_remember().map(|()| self.memory.entries.keys().cloned().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_finds_its_own_state_again_and_no_others() {
        let (mut one, mut offsets) = (Memory::default(), SourceOffsets::default());
        one.set("a".to_owned(), Some(b"\0one".to_vec())).unwrap();
        one.set("b".to_owned(), Some(b"gone".to_vec())).unwrap();
        one.set("b".to_owned(), None).unwrap();
        one.save(1, &mut offsets);
        let mut eleven = Memory::default();
        eleven.set("a".to_owned(), Some(b"eleven".to_vec())).unwrap();
        eleven.save(11, &mut offsets);
        let mut stored = SourceOffsets::default();
        stored.merge(offsets);
        let loaded = |task| Memory::load(task, &stored).unwrap().entries;
        assert_eq!(loaded(1), [("a".to_owned(), b"\0one".to_vec())].into());
        assert_eq!(loaded(11), [("a".to_owned(), b"eleven".to_vec())].into());
        assert!(loaded(0).is_empty() && loaded(2).is_empty());
        let unreadable =
            SourceOffsets { partitions: [("towpath:state:0:a".to_owned(), Json::from(7))].into() };
        assert!(Memory::load(0, &unreadable).is_err());
    }

    #[test]
    fn state_is_bounded() {
        let mut memory = Memory::default();
        assert!(memory.set("k".repeat(257), None).is_err());
        assert!(memory.set("k".to_owned(), Some(vec![0; 64 * 1024 + 1])).is_err());
        let fits =
            (0..100).filter(|n| memory.set(format!("{n:03}"), Some(vec![0; 64 * 1024])).is_ok()).count();
        assert_eq!(fits, 15);
        memory.set("000".to_owned(), None).unwrap();
        memory.set("new".to_owned(), Some(vec![0; 64 * 1024])).unwrap();
        let churned = (0..100_000).take_while(|n| memory.set(format!("x{n}"), None).is_ok()).count();
        assert!(churned < 5000, "{churned}");
    }
}
