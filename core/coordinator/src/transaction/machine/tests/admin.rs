//! What is told about ids, and how they are forgotten.

use towpath_wire::ListTransactionsRequest;

use super::*;

fn list(world: &World, request: &ListTransactionsRequest) -> Vec<String> {
    let filter = TransactionFilter::new(request).unwrap();
    world.machine.list(world.now(), &filter).into_iter().map(|listed| listed.transactional_id).collect()
}

/// `app-1` is open since 5 s, `app-2` is committed, `app-3` is being aborted, `other` has nobody begun.
fn some() -> World {
    let mut world = World::new();
    for id in ["app-1", "app-2", "app-3", "other"] {
        let owner = world.init(id).unwrap();
        match id {
            "app-1" => assert_eq!(world.add(id, owner, partitions("t", [3, 1])), ErrorCode::None),
            "app-2" | "app-3" => {
                world.add(id, owner, partitions("t", [0]));
                world.end(id, owner, id == "app-2", ClientVersion::V2).unwrap();
                if id == "app-2" {
                    world.write_markers();
                }
            }
            _ => {}
        }
    }
    world.pass(5_000);
    world
}

#[test]
fn ids_are_described() {
    let world = some();
    let described = world.machine.describe("app-1");
    assert_eq!((described.error_code, described.transaction_state.as_str()), (0, "Ongoing"));
    assert_eq!((described.producer_id, described.producer_epoch), (1_000, 0));
    assert_eq!(described.transaction_timeout_ms, TIMEOUT_MS);
    assert_eq!(described.transaction_start_time_ms, WALL_MS);
    assert_eq!((described.topics[0].topic.as_str(), &described.topics[0].partitions[..]), ("t", &[1, 3][..]));
    let described = world.machine.describe("other");
    assert_eq!((described.transaction_state.as_str(), described.transaction_start_time_ms), ("Empty", -1));
    assert_eq!(world.machine.describe("x").error_code, ErrorCode::TransactionalIdNotFound.code());
    assert_eq!(world.machine.describe("").error_code, ErrorCode::InvalidRequest.code());
}

#[test]
fn ids_are_listed_by_state_producer_duration_and_name() {
    let world = some();
    let request = ListTransactionsRequest::default;
    assert_eq!(list(&world, &request()), ["app-1", "app-2", "app-3", "other"]);
    let states = |names: &[&str]| ListTransactionsRequest {
        state_filters: names.iter().map(|name| (*name).to_owned()).collect(),
        ..request()
    };
    assert_eq!(list(&world, &states(&["Ongoing", "PrepareAbort"])), ["app-1", "app-3"]);
    assert_eq!(list(&world, &states(&["CompleteCommit", "Nonsense"])), ["app-2"]);
    let filter =
        TransactionFilter::new(&states(&["Nonsense", "Dead", "PrepareEpochFence", "empty"])).unwrap();
    assert_eq!(filter.unknown_states(), ["Nonsense", "empty"]);
    assert_eq!(world.machine.list(world.now(), &filter), []);
    let producers = ListTransactionsRequest { producer_id_filters: vec![1_001, 1_003, 7], ..request() };
    assert_eq!(list(&world, &producers), ["app-2", "other"]);
    let longer = |duration_filter| ListTransactionsRequest { duration_filter, ..request() };
    assert_eq!(list(&world, &longer(4_999)), ["app-1", "app-2", "app-3", "other"]);
    // As in Kafka, what has not begun has run for ever.
    assert_eq!(list(&world, &longer(5_000)), ["other"]);
    let named = |pattern: &str| ListTransactionsRequest {
        transactional_id_pattern: Some(pattern.to_owned()),
        ..request()
    };
    assert_eq!(list(&world, &named("app-[12]")), ["app-1", "app-2"]);
    assert_eq!(list(&world, &named("app|other")), ["other"], "the whole id");
    assert_eq!(list(&world, &named("")).len(), 4);
    for pattern in ["(", "a)|(b", r"(a)\1", "a{1000}{1000}{1000}"] {
        let error = TransactionFilter::new(&named(pattern)).unwrap_err();
        assert_eq!(error, ErrorCode::InvalidRegularExpression, "{pattern}");
    }
    let both =
        ListTransactionsRequest { state_filters: vec!["Ongoing".into(), "Empty".into()], ..named("app-.*") };
    assert_eq!(list(&world, &both), ["app-1"]);
}

#[test]
fn ids_that_nobody_uses_are_forgotten() {
    let config = TransactionConfig { id_expiration_ms: 100_000_000, ..TransactionConfig::default() };
    let mut world = World::with_config(config);
    for id in ["idle", "aborted", "open", "used"] {
        let owner = world.init(id).unwrap();
        match id {
            "aborted" => _ = world.end(id, owner, false, ClientVersion::V2),
            "open" => {
                world.add(id, owner, partitions("t", [0]));
                world.end(id, owner, true, ClientVersion::V2).unwrap();
            }
            _ => {}
        }
    }
    world.pass(60_000_000);
    world.init("used").unwrap();
    world.pass(50_000_000);
    assert_eq!(world.machine.stats().ids, 2);
    assert_eq!(world.machine.id("idle"), None);
    assert_eq!(world.state("open"), TransactionState::PrepareCommit, "its markers are not written");
    let reloaded = world.reloaded();
    assert_eq!((reloaded.machine.id("aborted"), reloaded.machine.stats().ids), (None, 2));
    assert_eq!(
        world.add("idle", producer(1_000, 0), partitions("t", [0])),
        ErrorCode::InvalidProducerIdMapping
    );
    let anew = world.init_as("idle", Some(producer(1_000, 0))).unwrap();
    assert_eq!(anew.epoch.get(), 0, "it begins anew, with another producer id");
    assert_ne!(anew.id.get(), 1_000);
}

#[test]
fn tombstones_that_are_not_stored_come_again() {
    let mut world = World::new();
    let week_ms = 7 * 24 * 60 * 60 * 1_000;
    let long = |number: usize| format!("{number:03}{}", "x".repeat(2_000));
    for number in 0..100 {
        world.init(&long(number)).unwrap();
    }
    world.pass(week_ms - 1);
    world.is_instant = false;
    world.pass(60 * 60 * 1_000);
    assert!(world.appends.len() > 1, "they go in batches");
    assert_eq!(world.appends.iter().map(|(_, records)| records.len()).sum::<usize>(), 100);
    assert_eq!(world.init(&long(0)), Err(ErrorCode::ConcurrentTransactions));
    let first = world.appends[0].1.len();
    world.finish_append(Err(ErrorCode::CoordinatorNotAvailable));
    while !world.appends.is_empty() {
        world.finish_append(Ok(()));
    }
    assert_eq!(world.machine.stats().ids, first);
    world.is_instant = true;
    world.pass(60 * 60 * 1_000);
    assert_eq!(world.machine.stats(), TransactionStats::default());
}
