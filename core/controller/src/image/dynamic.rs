//! Configurations of brokers and groups that were set while the cluster runs.

use std::collections::BTreeMap;

use towpath_types::BrokerId;

/// Name and value of each configuration.
pub type Configs = BTreeMap<String, String>;

static NONE: Configs = BTreeMap::new();

/// Configurations of brokers and groups that were set while the cluster runs, by the names that they have there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DynamicConfigs {
    brokers: BTreeMap<BrokerId, Configs>,
    all_brokers: Configs,
    groups: BTreeMap<String, Configs>,
}

impl DynamicConfigs {
    /// Those of one broker, or (`None`) of all brokers.
    #[must_use]
    pub fn broker(&self, broker: Option<BrokerId>) -> &Configs {
        match broker {
            None => &self.all_brokers,
            Some(id) => self.brokers.get(&id).unwrap_or(&NONE),
        }
    }

    /// The brokers that have configurations of their own.
    pub fn brokers(&self) -> impl Iterator<Item = (BrokerId, &Configs)> {
        self.brokers.iter().map(|(id, configs)| (*id, configs))
    }

    /// Those of a group.
    #[must_use]
    pub fn group(&self, group: &str) -> &Configs {
        self.groups.get(group).unwrap_or(&NONE)
    }

    /// The groups that have configurations.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = (&str, &Configs)> {
        self.groups.iter().map(|(group, configs)| (group.as_str(), configs))
    }

    pub(super) fn set_broker(&mut self, broker: Option<BrokerId>, name: &str, value: Option<&str>) {
        match broker {
            None => set(&mut self.all_brokers, name, value),
            Some(id) => set_in(&mut self.brokers, id, name, value),
        }
    }

    pub(super) fn set_group(&mut self, group: &str, name: &str, value: Option<&str>) {
        set_in(&mut self.groups, group.to_owned(), name, value);
    }

    /// How many single configurations there are.
    pub(super) fn len(&self) -> usize {
        let sizes = self.brokers.values().chain(self.groups.values()).chain([&self.all_brokers]);
        sizes.map(BTreeMap::len).sum()
    }
}

fn set(configs: &mut Configs, name: &str, value: Option<&str>) {
    match value {
        Some(value) => configs.insert(name.to_owned(), value.to_owned()),
        None => configs.remove(name),
    };
}

/// What has no configurations any more is not remembered.
fn set_in<K: Ord>(all: &mut BTreeMap<K, Configs>, key: K, name: &str, value: Option<&str>) {
    match (all.get_mut(&key), value) {
        (Some(configs), value) => {
            set(configs, name, value);
            if configs.is_empty() {
                all.remove(&key);
            }
        }
        (None, Some(value)) => {
            all.insert(key, Configs::from([(name.to_owned(), value.to_owned())]));
        }
        (None, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_back_leaves_nothing() {
        let mut configs = DynamicConfigs::default();
        configs.set_broker(Some(BrokerId::new(1)), "a", Some("1"));
        configs.set_broker(None, "a", Some("2"));
        configs.set_group("g", "b", Some("3"));
        assert_eq!(configs.len(), 3);
        assert_eq!(configs.broker(Some(BrokerId::new(1)))["a"], "1");
        assert_eq!(configs.broker(None)["a"], "2");
        assert_eq!(configs.group("g")["b"], "3");
        assert!(configs.group("h").is_empty() && configs.broker(Some(BrokerId::new(2))).is_empty());
        configs.set_broker(Some(BrokerId::new(1)), "a", None);
        configs.set_broker(None, "a", None);
        configs.set_group("g", "b", None);
        configs.set_group("g", "b", None);
        assert_eq!(configs, DynamicConfigs::default());
    }
}
