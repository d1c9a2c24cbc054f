//! AlterConfigs: sets all configurations of a resource at once; those not named go back to their defaults.

use std::collections::HashMap;
use std::sync::Arc;

use towpath_controller::MetadataImage;
use towpath_controller::decide::{AdminError, Decision, replace_configs};
use towpath_wire::alter_configs::{AlterConfigsResource, AlterConfigsResourceResponse};
use towpath_wire::{AlterConfigsRequest, AlterConfigsResponse, ErrorCode};

use super::RequestContext;
use super::incremental_alter_configs::{flatten, target};
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let mut uses: HashMap<(i8, String), usize> = HashMap::new();
    for resource in &request.resources {
        *uses.entry((resource.resource_type, resource.resource_name.clone())).or_default() += 1;
    }
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let times = uses.get(&(resource.resource_type, resource.resource_name.clone())).copied().unwrap_or(1);
        let result = replace(&broker, &resource, times, request.validate_only).await;
        let (code, message) =
            result.map_or_else(|error| (error.code, Some(error.message)), |()| (ErrorCode::None, None));
        responses.push(AlterConfigsResourceResponse {
            error_code: code.code(),
            error_message: message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
        });
    }
    AlterConfigsResponse { responses, ..AlterConfigsResponse::default() }
}

async fn replace(
    broker: &Arc<BrokerState>,
    resource: &AlterConfigsResource,
    times: usize,
    validate_only: bool,
) -> Result<(), AdminError> {
    let target = target(resource.resource_type, &resource.resource_name, times)?;
    let configs: Vec<(String, Option<String>)> =
        resource.configs.iter().map(|config| (config.name.clone(), config.value.clone())).collect();
    let policy = broker.policy();
    let decide = move |image: &MetadataImage| match replace_configs(image, &target, &configs, &policy) {
        Ok(decision) if !validate_only => Decision { records: decision.records, answer: Ok(()) },
        Ok(_) => Decision::unchanged(Ok(())),
        Err(error) => Decision::unchanged(Err(error)),
    };
    flatten(broker.change(decide).await)
}
