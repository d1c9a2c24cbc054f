//! IncrementalAlterConfigs: changes single configurations of topics, brokers and groups (KIP-339).

use std::collections::HashMap;
use std::sync::Arc;

use towpath_controller::MetadataImage;
use towpath_controller::decide::{
    AdminError, ConfigChange, ConfigOperation, ConfigTarget, Decision, alter_configs,
};
use towpath_types::BrokerId;
use towpath_wire::incremental_alter_configs::{AlterConfigsResource, AlterConfigsResourceResponse, AlterableConfig};
use towpath_wire::{ErrorCode, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::RequestContext;
use super::describe_configs::{BROKER, GROUP, TOPIC, no_such_resource};
use crate::connection::ErrorChain;
use crate::state::{BrokerState, ChangeError};

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut uses: HashMap<(i8, String), usize> = HashMap::new();
    for resource in &request.resources {
        *uses.entry((resource.resource_type, resource.resource_name.clone())).or_default() += 1;
    }
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let times = uses.get(&(resource.resource_type, resource.resource_name.clone())).copied().unwrap_or(1);
        let result = alter(&broker, &resource, times, request.validate_only).await;
        let (code, message) = result.map_or_else(|error| (error.code, Some(error.message)), |()| (ErrorCode::None, None));
        responses.push(AlterConfigsResourceResponse {
            error_code: code.code(),
            error_message: message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
        });
    }
    IncrementalAlterConfigsResponse { responses, ..IncrementalAlterConfigsResponse::default() }
}

/// Whose configurations a request changes: each resource only once.
pub(super) fn target(resource_type: i8, name: &str, times: usize) -> Result<ConfigTarget, AdminError> {
    if times > 1 {
        let message = format!("Each resource must appear at most once: {name}");
        return Err(AdminError::new(ErrorCode::InvalidRequest, message));
    }
    match resource_type {
        TOPIC => Ok(ConfigTarget::Topic(name.to_owned())),
        GROUP => Ok(ConfigTarget::Group(name.to_owned())),
        BROKER if name.is_empty() => Ok(ConfigTarget::Broker(None)),
        BROKER => {
            let id = name.parse().map(BrokerId::new).map_err(|_| {
                let message = format!("Node id must be an integer, but it is: {name}");
                AdminError::new(ErrorCode::InvalidRequest, message)
            })?;
            Ok(ConfigTarget::Broker(Some(id)))
        }
        other => Err(no_such_resource(other)),
    }
}

/// The answer of a decision that may refuse.
pub(super) fn flatten(result: Result<Result<(), AdminError>, ChangeError>) -> Result<(), AdminError> {
    match result {
        Ok(answer) => answer,
        Err(error) => Err(AdminError::new(error.code(), ErrorChain(&error).to_string())),
    }
}

fn changes(configs: &[AlterableConfig]) -> Result<Vec<ConfigChange>, AdminError> {
    let change = |config: &AlterableConfig| {
        let operation = ConfigOperation::from_code(config.config_operation).ok_or_else(|| {
            let message = format!("Unknown operation type {} for {}", config.config_operation, config.name);
            AdminError::new(ErrorCode::InvalidRequest, message)
        })?;
        Ok(ConfigChange { name: config.name.clone(), operation, value: config.value.clone() })
    };
    configs.iter().map(change).collect()
}

async fn alter(
    broker: &Arc<BrokerState>,
    resource: &AlterConfigsResource,
    times: usize,
    validate_only: bool,
) -> Result<(), AdminError> {
    let target = target(resource.resource_type, &resource.resource_name, times)?;
    let changes = changes(&resource.configs)?;
    let policy = broker.policy();
    let decide = move |image: &MetadataImage| match alter_configs(image, &target, &changes, &policy) {
        Ok(decision) if !validate_only => Decision { records: decision.records, answer: Ok(()) },
        Ok(_) => Decision::unchanged(Ok(())),
        Err(error) => Decision::unchanged(Err(error)),
    };
    flatten(broker.change(decide).await)
}
