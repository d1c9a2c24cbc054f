//! The APIs of Kafka 4.3, and those that nodes of one cluster use among themselves.

use crate::VersionRange;

macro_rules! api_keys {
    ($($name:ident = $key:literal, $min:literal, $max:literal, $stable:literal, $flexible:expr;)*) => {
        /// The APIs of Apache Kafka 4.3, by Kafka's names. The keys 4 to 7 have no version any more and are not here.
        /// From [`ApiKey::FIRST_OWN`] on they are ours.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i16)]
        pub enum ApiKey {
            $(
                #[doc = concat!(stringify!($name), ", key ", stringify!($key), ".")]
                $name = $key,
            )*
        }

        impl ApiKey {
            /// Every API, by key.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Kafka's name, e.g. `Produce`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// The versions that Kafka 4.3 knows, unstable ones included; for APIs of ours, those that this build knows.
            #[must_use]
            pub const fn versions(self) -> VersionRange {
                match self {
                    $(Self::$name => VersionRange::new($min, $max),)*
                }
            }

            /// The versions that Kafka 4.3 advertises: without those that are still unstable.
            #[must_use]
            pub const fn stable_versions(self) -> VersionRange {
                match self {
                    $(Self::$name => VersionRange::new($min, $stable),)*
                }
            }

            /// The first version with compact lengths and tagged fields (KIP-482); `None` when no version has them.
            #[must_use]
            pub const fn flexible_from(self) -> Option<i16> {
                match self {
                    $(Self::$name => $flexible,)*
                }
            }
        }

        impl TryFrom<i16> for ApiKey {
            type Error = UnknownApiKey;

            fn try_from(key: i16) -> Result<Self, UnknownApiKey> {
                match key {
                    $($key => Ok(Self::$name),)*
                    _ => Err(UnknownApiKey(key)),
                }
            }
        }
    };
}

/// A key that no API of Kafka 4.3 has, and none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no API with the key {0}")]
pub struct UnknownApiKey(pub i16);

impl From<ApiKey> for i16 {
    fn from(key: ApiKey) -> Self {
        key as Self
    }
}

impl std::fmt::Display for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl ApiKey {
    /// The key as it stands on the wire.
    #[must_use]
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// The first key of the APIs that Kafka does not have.
    pub const FIRST_OWN: i16 = 20_000;

    /// Whether the API is ours, not one of Kafka's. All of them are private.
    #[must_use]
    pub const fn is_own(self) -> bool {
        self as i16 >= Self::FIRST_OWN
    }

    /// Whether only nodes of the same cluster may use the API: those of Kafka that only its controllers' listener has,
    /// and ours. ApiVersions never tells of a private API; `Fetch` is for clients, too, and is not one.
    #[must_use]
    pub const fn is_private(self) -> bool {
        self.is_own()
            || matches!(
                self,
                Self::Vote
                    | Self::BeginQuorumEpoch
                    | Self::EndQuorumEpoch
                    | Self::AlterPartition
                    | Self::Envelope
                    | Self::FetchSnapshot
                    | Self::BrokerRegistration
                    | Self::BrokerHeartbeat
                    | Self::AllocateProducerIds
                    | Self::ControllerRegistration
                    | Self::AssignReplicasToDirs
                    | Self::UpdateRaftVoter
            )
    }

    /// Whether `version` has compact lengths and tagged fields. True for versions above those known, too: the header
    /// of a request from the future can be read although its body cannot.
    #[must_use]
    pub fn is_flexible(self, version: i16) -> bool {
        self.flexible_from().is_some_and(|from| version >= from)
    }
}

/// The version of the request header: 2 where the request is flexible, else 1.
#[must_use]
pub fn request_header_version(key: ApiKey, version: i16) -> i16 {
    if key.is_flexible(version) { 2 } else { 1 }
}

/// The version of the response header: 1 where the response is flexible, else 0. ApiVersions is always answered with
/// version 0, since the client does not know yet what the broker understands (KIP-511).
#[must_use]
pub fn response_header_version(key: ApiKey, version: i16) -> i16 {
    if key != ApiKey::ApiVersions && key.is_flexible(version) { 1 } else { 0 }
}

// name = key, lowest version, highest version, highest stable version, first flexible version
api_keys! {
    Produce = 0, 3, 13, 13, Some(9);
    Fetch = 1, 4, 18, 18, Some(12);
    ListOffsets = 2, 1, 11, 11, Some(6);
    Metadata = 3, 0, 13, 13, Some(9);
    OffsetCommit = 8, 2, 10, 10, Some(8);
    OffsetFetch = 9, 1, 10, 10, Some(6);
    FindCoordinator = 10, 0, 6, 6, Some(3);
    JoinGroup = 11, 0, 9, 9, Some(6);
    Heartbeat = 12, 0, 4, 4, Some(4);
    LeaveGroup = 13, 0, 5, 5, Some(4);
    SyncGroup = 14, 0, 5, 5, Some(4);
    DescribeGroups = 15, 0, 6, 6, Some(5);
    ListGroups = 16, 0, 5, 5, Some(3);
    SaslHandshake = 17, 0, 1, 1, None;
    ApiVersions = 18, 0, 4, 4, Some(3);
    CreateTopics = 19, 2, 7, 7, Some(5);
    DeleteTopics = 20, 1, 6, 6, Some(4);
    DeleteRecords = 21, 0, 2, 2, Some(2);
    InitProducerId = 22, 0, 6, 5, Some(2);
    OffsetForLeaderEpoch = 23, 2, 4, 4, Some(4);
    AddPartitionsToTxn = 24, 0, 5, 5, Some(3);
    AddOffsetsToTxn = 25, 0, 4, 4, Some(3);
    EndTxn = 26, 0, 5, 5, Some(3);
    WriteTxnMarkers = 27, 1, 2, 2, Some(1);
    TxnOffsetCommit = 28, 0, 5, 5, Some(3);
    DescribeAcls = 29, 1, 3, 3, Some(2);
    CreateAcls = 30, 1, 3, 3, Some(2);
    DeleteAcls = 31, 1, 3, 3, Some(2);
    DescribeConfigs = 32, 1, 4, 4, Some(4);
    AlterConfigs = 33, 0, 2, 2, Some(2);
    AlterReplicaLogDirs = 34, 1, 2, 2, Some(2);
    DescribeLogDirs = 35, 1, 5, 5, Some(2);
    SaslAuthenticate = 36, 0, 2, 2, Some(2);
    CreatePartitions = 37, 0, 3, 3, Some(2);
    CreateDelegationToken = 38, 1, 3, 3, Some(2);
    RenewDelegationToken = 39, 1, 2, 2, Some(2);
    ExpireDelegationToken = 40, 1, 2, 2, Some(2);
    DescribeDelegationToken = 41, 1, 3, 3, Some(2);
    DeleteGroups = 42, 0, 2, 2, Some(2);
    ElectLeaders = 43, 0, 2, 2, Some(2);
    IncrementalAlterConfigs = 44, 0, 1, 1, Some(1);
    AlterPartitionReassignments = 45, 0, 1, 1, Some(0);
    ListPartitionReassignments = 46, 0, 0, 0, Some(0);
    OffsetDelete = 47, 0, 0, 0, None;
    DescribeClientQuotas = 48, 0, 1, 1, Some(1);
    AlterClientQuotas = 49, 0, 1, 1, Some(1);
    DescribeUserScramCredentials = 50, 0, 0, 0, Some(0);
    AlterUserScramCredentials = 51, 0, 0, 0, Some(0);
    Vote = 52, 0, 2, 2, Some(0);
    BeginQuorumEpoch = 53, 0, 1, 1, Some(1);
    EndQuorumEpoch = 54, 0, 1, 1, Some(1);
    DescribeQuorum = 55, 0, 2, 2, Some(0);
    AlterPartition = 56, 2, 3, 3, Some(0);
    UpdateFeatures = 57, 0, 2, 2, Some(0);
    Envelope = 58, 0, 0, 0, Some(0);
    FetchSnapshot = 59, 0, 1, 1, Some(0);
    DescribeCluster = 60, 0, 2, 2, Some(0);
    DescribeProducers = 61, 0, 0, 0, Some(0);
    BrokerRegistration = 62, 0, 4, 4, Some(0);
    BrokerHeartbeat = 63, 0, 2, 2, Some(0);
    UnregisterBroker = 64, 0, 0, 0, Some(0);
    DescribeTransactions = 65, 0, 0, 0, Some(0);
    ListTransactions = 66, 0, 2, 2, Some(0);
    AllocateProducerIds = 67, 0, 0, 0, Some(0);
    ConsumerGroupHeartbeat = 68, 0, 1, 1, Some(0);
    ConsumerGroupDescribe = 69, 0, 1, 1, Some(0);
    ControllerRegistration = 70, 0, 0, 0, Some(0);
    GetTelemetrySubscriptions = 71, 0, 0, 0, Some(0);
    PushTelemetry = 72, 0, 0, 0, Some(0);
    AssignReplicasToDirs = 73, 0, 0, 0, Some(0);
    ListConfigResources = 74, 0, 1, 1, Some(0);
    DescribeTopicPartitions = 75, 0, 0, 0, Some(0);
    ShareGroupHeartbeat = 76, 1, 1, 1, Some(0);
    ShareGroupDescribe = 77, 1, 1, 1, Some(0);
    ShareFetch = 78, 1, 2, 2, Some(0);
    ShareAcknowledge = 79, 1, 2, 2, Some(0);
    AddRaftVoter = 80, 0, 1, 1, Some(0);
    RemoveRaftVoter = 81, 0, 0, 0, Some(0);
    UpdateRaftVoter = 82, 0, 0, 0, Some(0);
    InitializeShareGroupState = 83, 0, 0, 0, Some(0);
    ReadShareGroupState = 84, 0, 0, 0, Some(0);
    WriteShareGroupState = 85, 0, 1, 1, Some(0);
    DeleteShareGroupState = 86, 0, 0, 0, Some(0);
    ReadShareGroupStateSummary = 87, 0, 1, 1, Some(0);
    StreamsGroupHeartbeat = 88, 0, 0, 0, Some(0);
    StreamsGroupDescribe = 89, 0, 0, 0, Some(0);
    DescribeShareGroupOffsets = 90, 0, 1, 1, Some(0);
    AlterShareGroupOffsets = 91, 0, 0, 0, Some(0);
    DeleteShareGroupOffsets = 92, 0, 0, 0, Some(0);
    NodeHello = 20_000, 0, 0, 0, Some(0);
    Quorum = 20_001, 0, 0, 0, Some(0);
    Forward = 20_002, 0, 0, 0, Some(0);
}
