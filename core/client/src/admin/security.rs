//! Access control lists and quotas.

use std::collections::{BTreeMap, BTreeSet};

use towpath_wire::ApiKey;
use towpath_wire::messages::alter_client_quotas::{self, AlterClientQuotasRequest};
use towpath_wire::messages::create_acls::{AclCreation, CreateAclsRequest};
use towpath_wire::messages::delete_acls::{DeleteAclsFilter, DeleteAclsRequest};
use towpath_wire::messages::describe_acls::DescribeAclsRequest;
use towpath_wire::messages::describe_client_quotas::{ComponentData, DescribeClientQuotasRequest};

use super::{Admin, PerItem, left_out, wants_controller};
use crate::ClientError;
use crate::client::check;

/// A list of names with the numbers that they have on the wire.
macro_rules! codes {
    ($(#[$attribute:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $code:literal,)* }) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
            /// Another one, by its number.
            Other(i8),
        }

        impl $name {
            const fn wire(self) -> i8 {
                match self {
                    $(Self::$variant => $code,)*
                    Self::Other(code) => code,
                }
            }

            const fn from_wire(code: i8) -> Self {
                match code {
                    $($code => Self::$variant,)*
                    other => Self::Other(other),
                }
            }
        }
    };
}

codes! {
    /// What an ACL is about.
    AclResource {
        /// A topic.
        Topic = 2,
        /// A group.
        Group = 3,
        /// The cluster; its name is `kafka-cluster`.
        Cluster = 4,
        /// A transactional id.
        TransactionalId = 5,
        /// A delegation token.
        DelegationToken = 6,
        /// A user.
        User = 7,
    }
}

codes! {
    /// Which names an ACL's name stands for.
    AclPattern {
        /// In a filter: any that concerns the name, also by prefix or `*`.
        Match = 2,
        /// This name; `*` for all.
        Literal = 3,
        /// All names that begin so.
        Prefixed = 4,
    }
}

codes! {
    /// What an ACL allows or denies.
    AclOperation {
        /// Everything.
        All = 2,
        /// Reading.
        Read = 3,
        /// Writing.
        Write = 4,
        /// Creating.
        Create = 5,
        /// Deleting.
        Delete = 6,
        /// Altering.
        Alter = 7,
        /// Describing.
        Describe = 8,
        /// What nodes do among themselves.
        ClusterAction = 9,
        /// Reading configs.
        DescribeConfigs = 10,
        /// Altering configs.
        AlterConfigs = 11,
        /// Writing without a transactional id, once.
        IdempotentWrite = 12,
        /// Creating delegation tokens.
        CreateTokens = 13,
        /// Describing delegation tokens.
        DescribeTokens = 14,
        /// Transactions that outlive their coordinator's timeout (KIP-939).
        TwoPhaseCommit = 15,
    }
}

codes! {
    /// Whether an ACL allows or denies.
    AclPermission {
        /// It denies: more than any permission.
        Deny = 2,
        /// It allows.
        Allow = 3,
    }
}

/// Any, in the fields of a filter.
const ANY: i8 = 1;

/// One rule of access.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acl {
    /// The kind of resource.
    pub resource: AclResource,
    /// Its name.
    pub name: String,
    /// Which names that one stands for.
    pub pattern: AclPattern,
    /// Who, e.g. `User:alice` or `User:*`.
    pub principal: String,
    /// From where: an address, or `*`.
    pub host: String,
    /// Doing what.
    pub operation: AclOperation,
    /// Whether that is allowed.
    pub permission: AclPermission,
}

/// Which ACLs: those that match everything that is set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AclFilter {
    /// The kind of resource.
    pub resource: Option<AclResource>,
    /// Its name.
    pub name: Option<String>,
    /// How the name is meant.
    pub pattern: Option<AclPattern>,
    /// Who.
    pub principal: Option<String>,
    /// From where.
    pub host: Option<String>,
    /// Doing what.
    pub operation: Option<AclOperation>,
    /// Whether that is allowed.
    pub permission: Option<AclPermission>,
}

/// Whose quotas: entity types (`user`, `client-id`, `ip`) with their names; `None` stands for the default of a type.
pub type QuotaEntity = BTreeMap<String, Option<String>>;

/// How [`Admin::describe_client_quotas`] filters one entity type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuotaMatch {
    /// This name.
    Name(String),
    /// The default.
    Default,
    /// Any name, and the default.
    Any,
}

impl Admin {
    /// The rules that match.
    ///
    /// # Errors
    /// When the cluster cannot be asked, refuses, or has no authorizer.
    pub async fn describe_acls(&self, filter: &AclFilter) -> Result<BTreeSet<Acl>, ClientError> {
        let request = DescribeAclsRequest {
            resource_type_filter: filter.resource.map_or(ANY, AclResource::wire),
            resource_name_filter: filter.name.clone(),
            pattern_type_filter: filter.pattern.map_or(ANY, AclPattern::wire),
            principal_filter: filter.principal.clone(),
            host_filter: filter.host.clone(),
            operation: filter.operation.map_or(ANY, AclOperation::wire),
            permission_type: filter.permission.map_or(ANY, AclPermission::wire),
        };
        let ask = || self.client.request_any(&request);
        let (response, asked) = self.patiently("describing ACLs", ask).await?;
        check(response.error_code, response.error_message, ApiKey::DescribeAcls, &asked, "ACLs")?;
        let mut found = BTreeSet::new();
        for resource in response.resources {
            found.extend(resource.acls.into_iter().map(|acl| Acl {
                resource: AclResource::from_wire(resource.resource_type),
                name: resource.resource_name.clone(),
                pattern: AclPattern::from_wire(resource.pattern_type),
                principal: acl.principal,
                host: acl.host,
                operation: AclOperation::from_wire(acl.operation),
                permission: AclPermission::from_wire(acl.permission_type),
            }));
        }
        Ok(found)
    }

    /// Adds rules; those that are there already stay.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn create_acls(&self, acls: &BTreeSet<Acl>) -> Result<PerItem<Acl, ()>, ClientError> {
        let creation = |acl: &Acl| AclCreation {
            resource_type: acl.resource.wire(),
            resource_name: acl.name.clone(),
            resource_pattern_type: acl.pattern.wire(),
            principal: acl.principal.clone(),
            host: acl.host.clone(),
            operation: acl.operation.wire(),
            permission_type: acl.permission.wire(),
        };
        let request = CreateAclsRequest { creations: acls.iter().map(creation).collect() };
        let (response, asked) = self
            .controller(&request, |response| {
                response.results.iter().any(|it| wants_controller(it.error_code))
            })
            .await?;
        let api = ApiKey::CreateAcls;
        let mut answers = response.results.into_iter();
        let result = |acl: &Acl| match answers.next() {
            Some(answer) => check(answer.error_code, answer.error_message, api, &asked, &acl.name),
            None => Err(left_out(api, &asked)),
        };
        let results: Vec<_> = acls.iter().map(result).collect();
        Ok(acls.iter().cloned().zip(results).collect())
    }

    /// Removes the rules that match; the values are these.
    ///
    /// # Errors
    /// When the cluster cannot be asked, or refuses.
    pub async fn delete_acls(&self, filter: &AclFilter) -> Result<BTreeSet<Acl>, ClientError> {
        let filter = DeleteAclsFilter {
            resource_type_filter: filter.resource.map_or(ANY, AclResource::wire),
            resource_name_filter: filter.name.clone(),
            pattern_type_filter: filter.pattern.map_or(ANY, AclPattern::wire),
            principal_filter: filter.principal.clone(),
            host_filter: filter.host.clone(),
            operation: filter.operation.map_or(ANY, AclOperation::wire),
            permission_type: filter.permission.map_or(ANY, AclPermission::wire),
        };
        let request = DeleteAclsRequest { filters: vec![filter] };
        let (response, asked) = self
            .controller(&request, |response| {
                response.filter_results.iter().any(|it| wants_controller(it.error_code))
            })
            .await?;
        let api = ApiKey::DeleteAcls;
        let result = response.filter_results.into_iter().next().ok_or_else(|| left_out(api, &asked))?;
        check(result.error_code, result.error_message, api, &asked, "ACLs")?;
        let mut deleted = BTreeSet::new();
        for acl in result.matching_acls {
            check(acl.error_code, acl.error_message, api, &asked, &acl.resource_name)?;
            deleted.insert(Acl {
                resource: AclResource::from_wire(acl.resource_type),
                name: acl.resource_name,
                pattern: AclPattern::from_wire(acl.pattern_type),
                principal: acl.principal,
                host: acl.host,
                operation: AclOperation::from_wire(acl.operation),
                permission: AclPermission::from_wire(acl.permission_type),
            });
        }
        Ok(deleted)
    }

    /// The quotas of the entities that match all of the filters, by name (e.g. `producer_byte_rate`). With `strict`,
    /// entities of other types beside are left out.
    ///
    /// # Errors
    /// When the cluster cannot be asked, or refuses.
    pub async fn describe_client_quotas(
        &self,
        filters: &BTreeMap<String, QuotaMatch>,
        strict: bool,
    ) -> Result<BTreeMap<QuotaEntity, BTreeMap<String, f64>>, ClientError> {
        let component = |(entity_type, wanted): (&String, &QuotaMatch)| {
            let (match_type, match_) = match wanted {
                QuotaMatch::Name(name) => (0, Some(name.clone())),
                QuotaMatch::Default => (1, None),
                QuotaMatch::Any => (2, None),
            };
            ComponentData { entity_type: entity_type.clone(), match_type, match_ }
        };
        let request =
            DescribeClientQuotasRequest { components: filters.iter().map(component).collect(), strict };
        let ask = || self.client.request_any(&request);
        let (response, asked) = self.patiently("describing quotas", ask).await?;
        let api = ApiKey::DescribeClientQuotas;
        check(response.error_code, response.error_message, api, &asked, "quotas")?;
        let mut found = BTreeMap::new();
        for entry in response.entries.unwrap_or_default() {
            let entity: QuotaEntity =
                entry.entity.into_iter().map(|it| (it.entity_type, it.entity_name)).collect();
            found.insert(entity, entry.values.into_iter().map(|it| (it.key, it.value)).collect());
        }
        Ok(found)
    }

    /// Sets quotas (by name; `None` removes one), or only checks whether they could be set.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn alter_client_quotas(
        &self,
        changes: &BTreeMap<QuotaEntity, BTreeMap<String, Option<f64>>>,
        validate_only: bool,
    ) -> Result<PerItem<QuotaEntity, ()>, ClientError> {
        let operation = |(key, value): (&String, &Option<f64>)| alter_client_quotas::OpData {
            key: key.clone(),
            value: value.unwrap_or(0.0),
            remove: value.is_none(),
        };
        let named = |(entity_type, entity_name): (&String, &Option<String>)| {
            let (entity_type, entity_name) = (entity_type.clone(), entity_name.clone());
            alter_client_quotas::EntityData { entity_type, entity_name }
        };
        let entry = |(entity, values): (&QuotaEntity, &BTreeMap<String, Option<f64>>)| {
            alter_client_quotas::EntryData {
                entity: entity.iter().map(named).collect(),
                ops: values.iter().map(operation).collect(),
            }
        };
        let request =
            AlterClientQuotasRequest { entries: changes.iter().map(entry).collect(), validate_only };
        let (response, asked) = self
            .controller(&request, |response| {
                response.entries.iter().any(|it| wants_controller(it.error_code))
            })
            .await?;
        let api = ApiKey::AlterClientQuotas;
        let mut results: PerItem<QuotaEntity, ()> = BTreeMap::new();
        for answer in response.entries {
            let entity: QuotaEntity =
                answer.entity.into_iter().map(|it| (it.entity_type, it.entity_name)).collect();
            let result = check(answer.error_code, answer.error_message, api, &asked, "quotas");
            results.insert(entity, result);
        }
        for entity in changes.keys() {
            results.entry(entity.clone()).or_insert_with(|| Err(left_out(api, &asked)));
        }
        Ok(results)
    }
}
