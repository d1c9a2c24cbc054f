//! IncrementalAlterConfigs: changes single configurations of topics (KIP-339).

use std::collections::HashMap;
use std::sync::Arc;

use towpath_controller::MetadataImage;
use towpath_controller::decide::{AdminError, ConfigChange, ConfigOperation, Decision, alter_topic_config};
use towpath_wire::incremental_alter_configs::{AlterConfigsResource, AlterConfigsResourceResponse, AlterableConfig};
use towpath_wire::{ErrorCode, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::RequestContext;
use super::describe_configs::{BROKER, BROKER_LOGGER, TOPIC};
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
        let result = match check_resource(resource.resource_type, &resource.resource_name, times) {
            Ok(()) => alter(&broker, &resource, request.validate_only).await,
            Err(error) => Err(error),
        };
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

/// Checks what a configuration change is for: topics, and each only once.
pub(super) fn check_resource(resource_type: i8, name: &str, times: usize) -> Result<(), AdminError> {
    if times > 1 {
        let message = format!("Each resource must appear at most once: {name}");
        return Err(AdminError::new(ErrorCode::InvalidRequest, message));
    }
    match resource_type {
        TOPIC => Ok(()),
        BROKER | BROKER_LOGGER => Err(AdminError::new(
            ErrorCode::InvalidRequest,
            "This broker's own settings are read-only while it runs; set them in its configuration.",
        )),
        other => {
            let message = format!("Unsupported resource type {other}: only topics have configurations here.");
            Err(AdminError::new(ErrorCode::InvalidRequest, message))
        }
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
    validate_only: bool,
) -> Result<(), AdminError> {
    let changes = changes(&resource.configs)?;
    let name = resource.resource_name.clone();
    let policy = broker.policy();
    let decide = move |image: &MetadataImage| match alter_topic_config(image, &name, &changes, &policy) {
        Ok(decision) if !validate_only => Decision { records: decision.records, answer: Ok(()) },
        Ok(_) => Decision::unchanged(Ok(())),
        Err(error) => Decision::unchanged(Err(error)),
    };
    flatten(broker.change(decide).await)
}
