//! DescribeCluster.

use std::sync::Arc;

use towpath_wire::describe_cluster::DescribeClusterBroker;
use towpath_wire::{DescribeClusterRequest, DescribeClusterResponse, ErrorCode};

use super::{RequestContext, authorized};
use crate::state::BrokerState;

/// The endpoints of brokers; those of controllers are the other kind (KIP-919).
const BROKERS: i8 = 1;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    if request.endpoint_type != BROKERS {
        let code = if request.endpoint_type == 2 {
            ErrorCode::MismatchedEndpointType
        } else {
            ErrorCode::UnsupportedEndpointType
        };
        return DescribeClusterResponse {
            error_code: code.code(),
            error_message: Some("This is the endpoint of a broker.".to_owned()),
            ..DescribeClusterResponse::default()
        };
    }
    let image = broker.image();
    let mut response = DescribeClusterResponse {
        cluster_id: broker.cluster_id.clone(),
        controller_id: broker.controller_id(),
        brokers: image
            .brokers()
            .filter(|broker| request.include_fenced_brokers || !broker.fenced)
            .map(|broker| DescribeClusterBroker {
                broker_id: broker.id.get(),
                host: broker.host.clone(),
                port: i32::from(broker.port),
                rack: broker.rack.clone(),
                is_fenced: broker.fenced,
            })
            .collect(),
        ..DescribeClusterResponse::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = authorized::CLUSTER;
    }
    response
}
