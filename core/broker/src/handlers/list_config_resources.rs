//! ListConfigResources: which resources have configurations (KIP-1142).

use std::sync::Arc;

use towpath_wire::list_config_resources::ConfigResource;
use towpath_wire::{ErrorCode, ListConfigResourcesRequest, ListConfigResourcesResponse};

use super::RequestContext;
use super::describe_configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    cx: RequestContext,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    // Version 0 was ListClientMetricsResources; there are none.
    let types = match (cx.version, request.resource_types.is_empty()) {
        (0, _) => vec![CLIENT_METRICS],
        (_, true) => vec![TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP],
        _ => request.resource_types,
    };
    let image = broker.image();
    let mut response = ListConfigResourcesResponse::default();
    for resource_type in types {
        let names: Vec<String> = match resource_type {
            TOPIC => image.topics().map(|topic| topic.name.as_str().to_owned()).collect(),
            BROKER | BROKER_LOGGER => image.brokers().map(|broker| broker.id.to_string()).collect(),
            GROUP => image.dynamic_configs().groups().map(|(group, _)| group.to_owned()).collect(),
            CLIENT_METRICS => Vec::new(),
            _ => {
                response.error_code = ErrorCode::UnsupportedVersion.code();
                response.config_resources.clear();
                return response;
            }
        };
        let resource = |resource_name| ConfigResource { resource_name, resource_type };
        response.config_resources.extend(names.into_iter().map(resource));
    }
    response
}
