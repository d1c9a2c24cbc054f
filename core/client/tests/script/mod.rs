//! A cluster that answers what it is told to, one answer for each API.
#![allow(dead_code, reason = "each test has its own needs")]

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use towpath_client::{Admin, Client, ClientConfig, InProcessTransport};
use towpath_wire::frame::{self, decode_request, encode_response, peek_request};
use towpath_wire::messages::api_versions::{ApiVersion, FinalizedFeatureKey};
use towpath_wire::messages::metadata::MetadataResponseBroker;
use towpath_wire::{ApiKey, ApiVersionsResponse, MetadataResponse, Request, Segments};

/// What is known of a request beside itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) version: i16,
    /// The node that is asked: bootstrap is 1.
    pub(crate) node: u16,
}

/// `None` breaks the connection.
type Answer = Box<dyn FnMut(Bytes, Asked, i32) -> Option<Segments> + Send>;

/// The nodes 1 and 2, with one answer for each API, and the highest version that they know of some.
#[derive(Default)]
pub(crate) struct Script {
    answers: Mutex<HashMap<ApiKey, Answer>>,
    highest: HashMap<ApiKey, i16>,
    features: Vec<FinalizedFeatureKey>,
}

impl Script {
    pub(crate) fn with<R: Request>(self, mut answer: impl FnMut(R) -> R::Response + Send + 'static) -> Self {
        self.on(move |request, _| Some(answer(request)))
    }

    pub(crate) fn on<R: Request>(
        self,
        mut answer: impl FnMut(R, Asked) -> Option<R::Response> + Send + 'static,
    ) -> Self {
        let answer: Answer = Box::new(move |frame, asked, id| {
            let (_, request) = decode_request::<R>(frame).unwrap();
            Some(encode_response(R::KEY, asked.version, id, &answer(request, asked)?).unwrap())
        });
        self.answers.lock().insert(R::KEY, answer);
        self
    }

    pub(crate) fn at(mut self, key: ApiKey, highest: i16) -> Self {
        self.highest.insert(key, highest);
        self
    }

    pub(crate) fn feature(mut self, name: &str, level: i16) -> Self {
        self.features.push(FinalizedFeatureKey {
            name: name.to_owned(),
            max_version_level: level,
            min_version_level: level,
        });
        self
    }

    pub(crate) async fn admin(self) -> Admin {
        self.client().await.admin()
    }

    pub(crate) async fn client(self) -> Client {
        let script = Arc::new(self);
        let transport = InProcessTransport::routed(move |_, port, stream| {
            tokio::spawn(Arc::clone(&script).serve(port, stream));
            Ok(())
        });
        let config = ClientConfig {
            bootstrap_servers: vec!["scripted:1".to_owned()],
            transport: Arc::new(transport),
            request_timeout_ms: 5_000,
            api_timeout_ms: 5_000,
            retry_backoff_ms: 5,
            retry_backoff_ms_max: 20,
            reconnect_backoff_ms: 1,
            ..Default::default()
        };
        Client::connect(config).await.unwrap()
    }

    async fn serve(self: Arc<Self>, node: u16, mut stream: DuplexStream) {
        let mut buffer = BytesMut::new();
        loop {
            while let Some(request) = frame::take_frame(&mut buffer, 1 << 20).unwrap() {
                let Some(answer) = self.answer(request, node) else { return };
                for segment in answer.as_slice() {
                    if stream.write_all(segment).await.is_err() {
                        return;
                    }
                }
            }
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
    }

    fn answer(&self, request: Bytes, node: u16) -> Option<Segments> {
        let peek = peek_request(&request).unwrap();
        let (key, version, id) =
            (ApiKey::try_from(peek.api_key).unwrap(), peek.api_version, peek.correlation_id);
        let mut answers = self.answers.lock();
        if let Some(answer) = answers.get_mut(&key) {
            return answer(request, Asked { version, node }, id);
        }
        Some(match key {
            ApiKey::ApiVersions => {
                let keys = answers.keys().copied().chain([ApiKey::ApiVersions, ApiKey::Metadata]);
                let api_keys = keys.map(|key| {
                    let versions = key.stable_versions();
                    let max_version = self.highest.get(&key).copied().unwrap_or(versions.max);
                    ApiVersion { api_key: key.code(), min_version: versions.min, max_version }
                });
                let response = ApiVersionsResponse {
                    api_keys: api_keys.collect(),
                    finalized_features: self.features.clone(),
                    finalized_features_epoch: 1,
                    ..Default::default()
                };
                encode_response(key, version, id, &response).unwrap()
            }
            ApiKey::Metadata => encode_response(key, version, id, &nodes()).unwrap(),
            other => panic!("{other} was not to be sent"),
        })
    }
}

/// Metadata without topics.
pub(crate) fn nodes() -> MetadataResponse {
    let broker =
        |node_id| MetadataResponseBroker { node_id, host: "scripted".into(), port: node_id, rack: None };
    MetadataResponse { brokers: vec![broker(1), broker(2)], controller_id: 1, ..Default::default() }
}
