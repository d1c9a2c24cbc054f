//! The way to the coordinator of a group or of a transactional id.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use towpath_wire::messages::find_coordinator::FindCoordinatorRequest;
use towpath_wire::{ApiKey, ErrorCode, Request};

use crate::ClientError;
use crate::client::{Channel, ClientInner, SHARED_CHANNEL, check};
use crate::connection::Connection;

/// The first version of FindCoordinator that asks for several coordinators at once.
const FIND_VERSION_BATCH: i16 = 4;

/// Who is coordinated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyType {
    Group,
    /// A transactional id.
    Transaction,
}

/// The way to one coordinator: found when it is needed, and again when it has moved.
#[derive(Debug)]
pub(crate) struct CoordinatorLink {
    pub(crate) client: Arc<ClientInner>,
    /// `None` for the connections that everything shares.
    channel: Option<Arc<Channel>>,
    key_type: KeyType,
    key: Arc<str>,
    node: Mutex<Option<i32>>,
}

impl CoordinatorLink {
    pub(crate) fn new(
        client: Arc<ClientInner>,
        channel: Option<Arc<Channel>>,
        key_type: KeyType,
        key: &str,
    ) -> Self {
        Self { client, channel, key_type, key: Arc::from(key), node: Mutex::new(None) }
    }

    /// Whether it leads to the coordinator of this one.
    pub(crate) fn is_for(&self, key: &str) -> bool {
        *self.key == *key
    }

    /// The coordinator, as the cluster names it at present.
    pub(crate) async fn find(&self) -> Result<i32, ClientError> {
        if let Some(node) = *self.node.lock() {
            return Ok(node);
        }
        let connection = self.client.any_connection().await?;
        let version = connection.version_of(ApiKey::FindCoordinator)?;
        let (key, key_type) = (self.key.to_string(), i8::from(self.key_type == KeyType::Transaction));
        let request = if version >= FIND_VERSION_BATCH {
            FindCoordinatorRequest { key_type, coordinator_keys: vec![key], ..Default::default() }
        } else {
            FindCoordinatorRequest { key, key_type, ..Default::default() }
        };
        let mut response = connection.request_at(&request, version, self.client.request_timeout()).await?;
        let (node, host, port, code, message) = match response.coordinators.pop() {
            Some(entry) => (entry.node_id, entry.host, entry.port, entry.error_code, entry.error_message),
            None => {
                (response.node_id, response.host, response.port, response.error_code, response.error_message)
            }
        };
        check(code, message, ApiKey::FindCoordinator, connection.broker(), &self.key)?;
        self.client.learn_node(node, &host, port);
        *self.node.lock() = Some(node);
        Ok(node)
    }

    /// A connection to the coordinator.
    pub(crate) async fn connection(&self) -> Result<Connection, ClientError> {
        let node = self.find().await?;
        let opened = match &self.channel {
            Some(channel) => channel.connection(node).await,
            None => self.client.connection(node, SHARED_CHANNEL).await,
        };
        opened.inspect_err(|_| self.forget())
    }

    /// Looks for the coordinator again before the next request.
    pub(crate) fn forget(&self) {
        *self.node.lock() = None;
    }

    /// Sends one request; a broken connection makes it look for the coordinator again.
    pub(crate) async fn call<R: Request>(
        &self,
        request: &R,
        version_max: i16,
        timeout_after: Duration,
    ) -> Result<(R::Response, Arc<str>), ClientError> {
        let connection = self.connection().await?;
        let version = connection.version_of(R::KEY)?.min(version_max);
        match connection.request_at(request, version, timeout_after).await {
            Ok(response) => Ok((response, Arc::clone(connection.broker()))),
            Err(error) => {
                if error.is_network() {
                    self.forget();
                }
                Err(error)
            }
        }
    }

    /// Forgets the coordinator when a code says that it is not (there) any more.
    pub(crate) fn note(&self, code: ErrorCode) {
        if matches!(code, ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable) {
            self.forget();
        }
    }
}
