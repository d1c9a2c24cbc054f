//! The features that a node without a cluster uses (KIP-584).

use towpath_wire::consumer_group_heartbeat::TopicPartitions;
use towpath_wire::update_features::FeatureUpdateKey;
use towpath_wire::{
    ApiVersionsRequest, ConsumerGroupHeartbeatRequest, ErrorCode, FindCoordinatorRequest,
    UpdateFeaturesRequest,
};

use crate::support::{Client, PATIENCE, TestBroker, code};

/// The number of a way that a level may go.
const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;

/// Asks for levels of features; they change together or not at all.
async fn update(client: &mut Client, levels: &[(&str, i16)], way: i8, is_dry_run: bool) -> ErrorCode {
    let key = |(feature, level): &(&str, i16)| FeatureUpdateKey {
        feature: (*feature).to_owned(),
        max_version_level: *level,
        upgrade_type: way,
        ..FeatureUpdateKey::default()
    };
    let request = UpdateFeaturesRequest {
        feature_updates: levels.iter().map(key).collect(),
        timeout_ms: 10_000,
        validate_only: is_dry_run,
    };
    code(client.call(2, &request).await.error_code)
}

/// The level that clients see; none for a feature that is not used.
async fn level(client: &mut Client, feature: &str) -> Option<i16> {
    let request = ApiVersionsRequest {
        client_software_name: "features".to_owned(),
        client_software_version: "1".to_owned(),
    };
    let found = client.call(4, &request).await.finalized_features;
    found.into_iter().find(|it| it.name == feature).map(|it| it.max_version_level)
}

async fn join(client: &mut Client) -> ErrorCode {
    let request = ConsumerGroupHeartbeatRequest {
        group_id: "g".to_owned(),
        member_id: "a-member".to_owned(),
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(vec!["t".to_owned()]),
        topic_partitions: Some(Vec::<TopicPartitions>::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    };
    let find = FindCoordinatorRequest { coordinator_keys: vec!["g".to_owned()], ..Default::default() };
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        client.call(4, &find).await;
        let error = code(client.call(1, &request).await.error_code);
        if !error.is_retriable() || tokio::time::Instant::now() > end {
            return error;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn features_go_down_and_up_and_are_remembered() {
    let test = TestBroker::start().await;
    let mut client = test.client();
    assert_eq!(level(&mut client, "transaction.version").await, Some(2));
    for is_dry_run in [true, false] {
        let lower = [("transaction.version", 1)];
        assert_eq!(update(&mut client, &lower, UPGRADE, is_dry_run).await, ErrorCode::InvalidUpdateVersion);
        assert_eq!(update(&mut client, &lower, SAFE_DOWNGRADE, is_dry_run).await, ErrorCode::None);
        let expected = if is_dry_run { 2 } else { 1 };
        assert_eq!(level(&mut client, "transaction.version").await, Some(expected));
    }
    let off = [("group.version", 0)];
    let with_one_that_fails = [off[0], ("metadata.version", 29)];
    for (levels, expected) in [
        (&with_one_that_fails[..], ErrorCode::InvalidUpdateVersion),
        (&[("eligible.leader.replicas.version", 0)][..], ErrorCode::InvalidUpdateVersion),
        (&off[..], ErrorCode::None),
    ] {
        assert_eq!(level(&mut client, "group.version").await, Some(1), "before {levels:?}");
        assert_eq!(update(&mut client, levels, SAFE_DOWNGRADE, false).await, expected, "{levels:?}");
    }
    assert_eq!(level(&mut client, "group.version").await, None);
    assert_eq!(join(&mut client).await, ErrorCode::UnsupportedVersion);

    test.broker.shutdown().await.unwrap();
    let TestBroker { broker, dir } = test;
    drop(broker);
    let test = TestBroker::start_in(dir, |_| {}).await;
    let mut client = test.client();
    assert_eq!(level(&mut client, "group.version").await, None, "what was switched off stays off");
    assert_eq!(level(&mut client, "transaction.version").await, Some(1));
    let on = [("group.version", 1), ("transaction.version", 2)];
    assert_eq!(update(&mut client, &on, UPGRADE, false).await, ErrorCode::None);
    assert_eq!(level(&mut client, "group.version").await, Some(1));
    assert_eq!(level(&mut client, "transaction.version").await, Some(2));
    client.create_topic("t", 1, &[]).await;
    assert_eq!(join(&mut client).await, ErrorCode::None);
}
