//! Changing configurations: of topics, of brokers while they run, of groups.

mod broker;
mod group;
mod topic;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use towpath_types::BrokerId;
use towpath_wire::ErrorCode;

use super::{AdminError, ClusterPolicy, Decision};
use crate::config_key::{ConfigKey, ConfigProblem};
use crate::topic_config::{self, ConfigType};
use crate::{Configs, MetadataImage, MetadataRecord};

pub(super) use topic::{NOBODY, without_eligible_replicas};

/// What to do with one configuration (IncrementalAlterConfigs).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigOperation {
    /// Set it.
    Set,
    /// Go back to the default.
    Delete,
    /// Add elements to a list.
    Append,
    /// Take elements out of a list.
    Subtract,
}

impl ConfigOperation {
    /// The operation of a number on the wire.
    #[must_use]
    pub const fn from_code(code: i8) -> Option<Self> {
        match code {
            0 => Some(Self::Set),
            1 => Some(Self::Delete),
            2 => Some(Self::Append),
            3 => Some(Self::Subtract),
            _ => None,
        }
    }
}

/// One change.
#[derive(Debug, Clone)]
pub struct ConfigChange {
    /// The configuration.
    pub name: String,
    /// What to do.
    pub operation: ConfigOperation,
    /// With which value.
    pub value: Option<String>,
}

/// Whose configurations are changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigTarget {
    /// A topic's, by its name.
    Topic(String),
    /// A broker's while it runs; without an id those of all brokers.
    Broker(Option<BrokerId>),
    /// A group's, by its name.
    Group(String),
}

/// What a configuration is when nothing is set: its declaration, and the value.
type Unset<'a> = Box<dyn Fn(&str) -> Result<(ConfigKey, String), AdminError> + 'a>;

/// What the target has, and what is in force where it says nothing.
struct Current<'a> {
    configs: &'a Configs,
    /// Key and value in force of a configuration that the target does not set; the refusal for one that it cannot have.
    unset: Unset<'a>,
}

fn invalid(message: impl Into<String>) -> AdminError {
    AdminError::new(ErrorCode::InvalidConfig, message)
}

fn bad_request(message: impl Into<String>) -> AdminError {
    AdminError::new(ErrorCode::InvalidRequest, message)
}

fn refused(problem: &ConfigProblem) -> AdminError {
    invalid(problem.to_string())
}

/// Decides about single changes of configurations.
///
/// # Errors
/// [`AdminError`] when any of the changes cannot be; then none is made.
pub fn alter_configs(
    image: &MetadataImage,
    target: &ConfigTarget,
    changes: &[ConfigChange],
    policy: &ClusterPolicy,
) -> Result<Decision<()>, AdminError> {
    let mut names = BTreeSet::new();
    for change in changes {
        if !names.insert(change.name.as_str()) {
            return Err(bad_request(format!("Error due to duplicate config keys: {}", change.name)));
        }
        if change.value.is_none() && change.operation != ConfigOperation::Delete {
            return Err(null_value(&change.name));
        }
    }
    let current = current(image, target, policy)?;
    let mut configs = current.configs.clone();
    for change in changes {
        apply(&mut configs, change, &current)?;
    }
    finish(image, target, &configs, policy)
}

/// Decides about all of a target's configurations at once: those not named go back to their defaults.
///
/// # Errors
/// [`AdminError`] when any of them is not valid; then nothing changes.
pub fn replace_configs(
    image: &MetadataImage,
    target: &ConfigTarget,
    configs: &[(String, Option<String>)],
    policy: &ClusterPolicy,
) -> Result<Decision<()>, AdminError> {
    let mut new = BTreeMap::new();
    for (name, value) in configs {
        let Some(value) = value else { return Err(null_value(name)) };
        if new.insert(name.clone(), value.clone()).is_some() {
            return Err(bad_request(format!("Error due to duplicate config keys: {name}")));
        }
    }
    current(image, target, policy)?;
    finish(image, target, &new, policy)
}

fn null_value(name: &str) -> AdminError {
    bad_request(format!("Null value not supported for : {name}"))
}

fn current<'a>(
    image: &'a MetadataImage,
    target: &'a ConfigTarget,
    policy: &'a ClusterPolicy,
) -> Result<Current<'a>, AdminError> {
    match target {
        ConfigTarget::Topic(name) => topic::current(image, name, policy),
        ConfigTarget::Broker(id) => broker::current(image, *id, policy),
        ConfigTarget::Group(name) => group::current(image, name, policy),
    }
}

/// Checks the whole, and makes the records of what differs.
fn finish(
    image: &MetadataImage,
    target: &ConfigTarget,
    new: &Configs,
    policy: &ClusterPolicy,
) -> Result<Decision<()>, AdminError> {
    let records = match target {
        ConfigTarget::Topic(name) => topic::finish(image, name, new, policy),
        ConfigTarget::Broker(id) => broker::finish(image, *id, new, policy),
        ConfigTarget::Group(name) => group::finish(image, name, new, policy),
    }?;
    Ok(Decision { records, answer: () })
}

fn apply(configs: &mut Configs, change: &ConfigChange, current: &Current<'_>) -> Result<(), AdminError> {
    let name = &change.name;
    if change.operation == ConfigOperation::Delete {
        // What is set can always be taken back, also when it is none of ours any more; and nothing is what is left of what
        // was never set.
        configs.remove(name);
        return Ok(());
    }
    let (key, in_force) = (current.unset)(name)?;
    let Some(value) = &change.value else { return Err(null_value(name)) };
    if change.operation == ConfigOperation::Set {
        configs.insert(name.clone(), value.clone());
        return Ok(());
    }
    if key.config_type != ConfigType::List {
        return Err(invalid(format!(
            "Can't {} to key {name} because its type is not LIST.",
            if change.operation == ConfigOperation::Append { "APPEND" } else { "SUBTRACT" },
        )));
    }
    let present = configs.get(name).unwrap_or(&in_force);
    let mut elements: Vec<&str> = topic_config::list(present).collect();
    for element in topic_config::list(value) {
        match change.operation {
            ConfigOperation::Append if !elements.contains(&element) => elements.push(element),
            ConfigOperation::Subtract => elements.retain(|present| *present != element),
            _ => {}
        }
    }
    let joined = elements.join(",");
    configs.insert(name.clone(), joined);
    Ok(())
}

/// The configurations that are set anew, and those that are taken back.
fn differences<'a>(old: &'a Configs, new: &'a Configs) -> Vec<(&'a String, Option<&'a String>)> {
    let set = new.iter().filter(|(name, value)| old.get(*name) != Some(value));
    let removed = old.keys().filter(|name| !new.contains_key(*name));
    set.map(|(name, value)| (name, Some(value))).chain(removed.map(|name| (name, None))).collect()
}

fn records<'a>(
    changes: &'a [(&'a String, Option<&'a String>)],
    record: impl Fn(String, Option<String>) -> MetadataRecord + 'a,
) -> impl Iterator<Item = MetadataRecord> + 'a {
    changes.iter().map(move |(name, value)| record((*name).clone(), value.cloned()))
}
