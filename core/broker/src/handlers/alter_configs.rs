//! AlterConfigs: sets all configurations of a topic at once; those not named go back to their defaults.

use std::collections::HashMap;
use std::sync::Arc;

use towpath_controller::MetadataImage;
use towpath_controller::decide::{AdminError, Decision, replace_topic_config};
use towpath_wire::alter_configs::{AlterConfigsResource, AlterConfigsResourceResponse};
use towpath_wire::{AlterConfigsRequest, AlterConfigsResponse, ErrorCode};

use super::RequestContext;
use super::incremental_alter_configs::{check_resource, flatten};
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
        let result = match check_resource(resource.resource_type, &resource.resource_name, times) {
            Ok(()) => replace(&broker, &resource, request.validate_only).await,
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
    AlterConfigsResponse { responses, ..AlterConfigsResponse::default() }
}

async fn replace(
    broker: &Arc<BrokerState>,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), AdminError> {
    let name = resource.resource_name.clone();
    let configs: Vec<(String, Option<String>)> =
        resource.configs.iter().map(|config| (config.name.clone(), config.value.clone())).collect();
    let policy = broker.policy();
    let decide = move |image: &MetadataImage| match replace_topic_config(image, &name, &configs, &policy) {
        Ok(decision) if !validate_only => Decision { records: decision.records, answer: Ok(()) },
        Ok(_) => Decision::unchanged(Ok(())),
        Err(error) => Decision::unchanged(Err(error)),
    };
    flatten(broker.change(decide).await)
}
