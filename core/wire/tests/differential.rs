//! Our encoding against that of the `kafka-protocol` crate, for every API and version that both know, and against an
//! encoder that works from the field tables, for every API and version that we know.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable, Message as TheirMessage, Request as TheirRequest};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use towpath_wire::codec::{Decoder, Encoder};
use towpath_wire::{Message, Request};

const MESSAGES_PER_VERSION: usize = 60;

fn ours<M: Message>(bytes: &Bytes, version: i16) -> M {
    let mut d = Decoder::new(bytes.clone());
    let message = M::decode(&mut d, version)
        .unwrap_or_else(|error| panic!("{} v{version}: {error}\n{bytes:02x?}", M::NAME));
    d.finish().unwrap_or_else(|error| panic!("{} v{version}: {error}", M::NAME));
    message
}

fn our_bytes<M: Message>(message: &M, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(&mut out, version).unwrap_or_else(|error| panic!("{} v{version}: {error}", M::NAME));
    let mut segments = Encoder::sharing(16);
    message.encode_to(&mut segments, version).unwrap();
    assert_eq!(segments.finish().into_bytes(), out, "{} v{version}: segments differ", M::NAME);
    out.freeze()
}

fn their_bytes<T: Encodable>(message: &T, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(&mut out, version).unwrap();
    out.freeze()
}

/// Returns how many versions were compared with the other crate.
fn compare<M, T>() -> usize
where
    M: Message,
    T: TheirMessage + Encodable + Decodable + Default + PartialEq + std::fmt::Debug,
{
    let mut rng = ChaCha8Rng::seed_from_u64(0x0007_0a7b);
    let mut compared = 0;
    for version in M::VERSIONS.iter() {
        let both = version >= T::VERSIONS.min && version <= T::VERSIONS.max;
        compared += usize::from(both);
        for _ in 0..MESSAGES_PER_VERSION {
            let bytes = support::random_bytes::<M>(&mut rng, version, false).freeze();
            let message: M = ours(&bytes, version);
            let encoded = our_bytes(&message, version);
            assert_eq!(encoded, bytes, "{} v{version}: not what the field table says", M::NAME);
            if !both {
                continue;
            }
            // ours → theirs → ours
            let mut rest = encoded.clone();
            let theirs = T::decode(&mut rest, version)
                .unwrap_or_else(|error| panic!("{} v{version}: they refuse ours: {error}", M::NAME));
            assert!(rest.is_empty(), "{} v{version}: they leave {} bytes", M::NAME, rest.len());
            let back = their_bytes(&theirs, version);
            assert_eq!(back, encoded, "{} v{version}: they encode it differently", M::NAME);
            assert_eq!(ours::<M>(&back, version), message, "{} v{version}", M::NAME);
            // theirs → ours → theirs
            let mut again = our_bytes(&ours::<M>(&back, version), version);
            assert_eq!(T::decode(&mut again, version).unwrap(), theirs, "{} v{version}", M::NAME);
        }
        if both {
            compare_default::<M, T>(version);
        }
    }
    compared
}

/// A message without content: both fill in the same defaults, or cannot write them at this version.
fn compare_default<M: Message, T: Encodable + Default>(version: i16) {
    let mut bytes = BytesMut::new();
    let ours = M::default().encode(&mut bytes, version).ok().map(|()| bytes.freeze());
    let mut bytes = BytesMut::new();
    let theirs = T::default().encode(&mut bytes, version).ok().map(|()| bytes.freeze());
    assert_eq!(ours, theirs, "{} v{version}: the default differs", M::NAME);
}

macro_rules! compare_all {
    ($($request:ident,)*) => {
        [$({
            use kafka_protocol::messages::$request as Theirs;
            type Ours = towpath_wire::$request;
            assert_eq!(<Theirs as TheirRequest>::KEY, Ours::KEY.code(), "{}", Ours::KEY);
            let requests = compare::<Ours, Theirs>();
            let responses =
                compare::<<Ours as Request>::Response, <Theirs as TheirRequest>::Response>();
            (Ours::KEY, requests, responses)
        }),*]
    };
}

#[test]
fn every_api_encodes_as_the_other_implementation_does() {
    let compared = towpath_wire::for_each_request!(compare_all);
    for (key, requests, responses) in compared {
        assert!(requests > 0 && responses > 0, "{key}: {requests} requests, {responses} responses");
    }
    let versions: usize = compared.iter().map(|(_, requests, _)| requests).sum();
    assert!(versions > 190, "only {versions} versions are known to both");
}

#[test]
fn consumer_protocol_encodes_as_the_other_implementation_does() {
    use kafka_protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
    assert_eq!(compare::<towpath_wire::ConsumerProtocolAssignment, ConsumerProtocolAssignment>(), 4);
    assert_eq!(compare::<towpath_wire::ConsumerProtocolSubscription, ConsumerProtocolSubscription>(), 4);
}

/// What is not in the other crate: field table against derived code.
fn as_the_table_says<M: Message>() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for version in M::VERSIONS.iter() {
        for _ in 0..MESSAGES_PER_VERSION {
            let bytes = support::random_bytes::<M>(&mut rng, version, false).freeze();
            assert_eq!(our_bytes(&ours::<M>(&bytes, version), version), bytes, "{} v{version}", M::NAME);
        }
    }
}

#[test]
fn offset_records_encode_as_their_field_tables_say() {
    as_the_table_says::<towpath_wire::OffsetCommitKey>();
    as_the_table_says::<towpath_wire::OffsetCommitValue>();
    as_the_table_says::<towpath_wire::GroupMetadataKey>();
    as_the_table_says::<towpath_wire::GroupMetadataValue>();
    {
        use towpath_wire::consumer_group_records::*;
        as_the_table_says::<ConsumerGroupMetadataValue>();
        as_the_table_says::<ConsumerGroupPartitionMetadataValue>();
        as_the_table_says::<ConsumerGroupMemberMetadataValue>();
        as_the_table_says::<ConsumerGroupTargetAssignmentMetadataValue>();
        as_the_table_says::<ConsumerGroupTargetAssignmentMemberValue>();
        as_the_table_says::<ConsumerGroupCurrentMemberAssignmentValue>();
        as_the_table_says::<ConsumerGroupRegularExpressionValue>();
    }
    {
        use towpath_wire::share_group_records::*;
        as_the_table_says::<ShareGroupMemberMetadataValue>();
        as_the_table_says::<ShareGroupMetadataValue>();
        as_the_table_says::<ShareGroupTargetAssignmentMetadataValue>();
        as_the_table_says::<ShareGroupTargetAssignmentMemberValue>();
        as_the_table_says::<ShareGroupCurrentMemberAssignmentValue>();
        as_the_table_says::<ShareGroupStatePartitionMetadataValue>();
        as_the_table_says::<ShareSnapshotValue>();
        as_the_table_says::<ShareUpdateValue>();
    }
}

#[test]
fn transaction_records_encode_as_their_field_tables_say() {
    as_the_table_says::<towpath_wire::TransactionLogKey>();
    as_the_table_says::<towpath_wire::TransactionLogValue>();
}

macro_rules! own_apis {
    ($($request:ident,)*) => {
        $({
            use towpath_wire::{ApiKey, $request as Ours};
            as_the_table_says::<Ours>();
            as_the_table_says::<<Ours as Request>::Response>();
            let key = Ours::KEY;
            assert!(key.is_own() && key.is_private() && ApiKey::ALL.contains(&key), "{key}");
            assert_eq!((key.versions(), key.flexible_from()), (Ours::VERSIONS, Ours::FLEXIBLE_FROM), "{key}");
            assert_eq!(<Ours as Request>::Response::VERSIONS, Ours::VERSIONS, "{key}");
            assert_eq!(Ours::NAME, format!("{key}Request"));
        })*
    };
}

#[test]
fn our_own_apis_encode_as_their_field_tables_say() {
    towpath_wire::for_each_own_request!(own_apis);
}

macro_rules! skip_unknown {
    ($($request:ident,)*) => {
        $(
            skips_unknown_tags::<towpath_wire::$request>();
            skips_unknown_tags::<<towpath_wire::$request as Request>::Response>();
        )*
    };
}

/// A message of somebody who knows more fields reads as if they were not there.
fn skips_unknown_tags<M: Message>() {
    let Some(flexible_from) = M::FLEXIBLE_FROM else { return };
    for version in flexible_from.max(M::VERSIONS.min)..=M::VERSIONS.max {
        let seed = || ChaCha8Rng::seed_from_u64(u64::from(version.unsigned_abs()) + 5);
        for _ in 0..20 {
            let more = support::random_bytes::<M>(&mut seed(), version, true).freeze();
            let known = our_bytes(&ours::<M>(&more, version), version);
            assert!(known.len() < more.len(), "{} v{version}", M::NAME);
            assert_eq!(our_bytes(&ours::<M>(&known, version), version), known, "{} v{version}", M::NAME);
        }
    }
}

#[test]
fn unknown_tagged_fields_are_skipped() {
    towpath_wire::for_each_request!(skip_unknown);
    towpath_wire::for_each_own_request!(skip_unknown);
}

#[test]
fn error_codes_are_those_of_the_other_implementation() {
    use kafka_protocol::error::ResponseError;
    use towpath_wire::ErrorCode;
    let mut compared = 0;
    for ours in ErrorCode::ALL {
        let Some(theirs) = ResponseError::try_from_code(ours.code()) else {
            assert_eq!(*ours, ErrorCode::None);
            continue;
        };
        if matches!(theirs, ResponseError::Unknown(_)) {
            continue;
        }
        let name = ours.name().replace('_', "").to_lowercase();
        assert_eq!(name, theirs.to_string().to_lowercase(), "{}", ours.code());
        // Kafka 4.3 has made it retriable; the other implementation is of 4.1.
        if *ours != ErrorCode::ConcurrentTransactions {
            assert_eq!(ours.is_retriable(), theirs.is_retriable(), "{ours}");
        }
        compared += 1;
    }
    assert!(compared > 120, "only {compared} codes are known to both");
}
