//! WriteTxnMarkers (API key 27).

use towpath_wire_derive::Message;

/// The request of WriteTxnMarkers, versions 1-2.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = WriteTxnMarkers, response = WriteTxnMarkersResponse, versions = "1-2", flexible = "1+")]
pub struct WriteTxnMarkersRequest {
    /// The transaction markers to be written.
    pub markers: Vec<WritableTxnMarker>,
}

/// A part of [`WriteTxnMarkersRequest`]: one entry of `markers`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct WritableTxnMarker {
    /// The producer.
    pub producer_id: i64,
    /// The epoch of the producer.
    pub producer_epoch: i16,
    /// The result of the transaction to write to the partitions (false = ABORT, true = COMMIT).
    pub transaction_result: bool,
    /// One entry for each topic.
    pub topics: Vec<WritableTxnMarkerTopic>,
    /// Epoch associated with the transaction state partition hosted by this transaction coordinator.
    pub coordinator_epoch: i32,
    /// Transaction version of the marker.
    #[wire(versions = "2+", ignorable)]
    pub transaction_version: i8,
}

/// A part of [`WriteTxnMarkersRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct WritableTxnMarkerTopic {
    /// The topic name.
    pub name: String,
    /// The indexes of the partitions to write transaction markers for.
    pub partition_indexes: Vec<i32>,
}

/// The answer to [`WriteTxnMarkersRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "1-2", flexible = "1+")]
pub struct WriteTxnMarkersResponse {
    /// The results for writing makers.
    pub markers: Vec<WritableTxnMarkerResult>,
}

/// A part of [`WriteTxnMarkersResponse`]: one entry of `markers`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct WritableTxnMarkerResult {
    /// The producer.
    pub producer_id: i64,
    /// One entry for each topic.
    pub topics: Vec<WritableTxnMarkerTopicResult>,
}

/// A part of [`WriteTxnMarkersResponse`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct WritableTxnMarkerTopicResult {
    /// The topic name.
    pub name: String,
    /// One entry for each partition.
    pub partitions: Vec<WritableTxnMarkerPartitionResult>,
}

/// A part of [`WriteTxnMarkersResponse`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct WritableTxnMarkerPartitionResult {
    /// The partition.
    pub partition_index: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
}
