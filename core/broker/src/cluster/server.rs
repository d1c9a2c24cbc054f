//! The listener for other nodes. A connection begins with a hello; after that it carries either messages, which are
//! answered as they are done, or a follower's fetches, which go the way of all record traffic.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use towpath_types::{BrokerId, limits};
use towpath_wire::frame::{self, RequestHeader};
use towpath_wire::{
    AllocateProducerIdsRequest, AlterPartitionRequest, ApiKey, AssignReplicasToDirsRequest,
    BrokerHeartbeatRequest, BrokerRegistrationRequest, Decoder, ErrorCode, ForwardRequest, ForwardResponse,
    Message, NodeHelloRequest, NodeHelloResponse, QuorumRequest, QuorumResponse, Request,
};

use super::ClusterNode;
use super::controller::ControllerRequest;
use super::peer::read_frame_within;
use crate::connection::{ErrorChain, Peer};
use crate::stream::Stream;

/// How long a caller may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a hello: nobody has said yet that it is a node (R10).
const HELLO_BYTES_MAX: usize = 16 * 1024;
/// Messages of one connection in work (R10).
const IN_WORK_MAX: usize = 64;
/// Connections that nodes may have open here (R10).
const CONNECTIONS_MAX: usize = 4096;
/// How long to wait after a failed accept.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Accepts until the task is aborted.
pub(crate) async fn listen(node: Arc<ClusterNode>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // They end with this task.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, address)) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    tracing::warn!(%address, "refused: too many connections of nodes");
                    continue;
                };
                let node = Arc::clone(&node);
                connections.spawn(async move {
                    if let Err(error) = serve(&node, stream, address).await {
                        tracing::debug!(%address, %error, "the connection of a node ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept the connection of a node");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Who calls, after its hello was found in order.
struct Caller {
    node: BrokerId,
    is_for_records: bool,
}

async fn serve(node: &Arc<ClusterNode>, mut stream: TcpStream, address: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
    let mut buffer = BytesMut::new();
    let first =
        tokio::time::timeout(HELLO_TIMEOUT, read_frame_within(&mut stream, &mut buffer, HELLO_BYTES_MAX))
            .await;
    let first = first.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let (header, hello) = frame::decode_request::<NodeHelloRequest>(first).map_err(invalid)?;
    let (answer, caller) = greet(node, &hello, address);
    let answer =
        frame::encode_response(ApiKey::NodeHello, 0, header.correlation_id, &answer).map_err(invalid)?;
    stream.write_all(&answer.into_bytes()).await?;
    let Some(caller) = caller else { return Ok(()) };
    if caller.is_for_records {
        // Nothing was pipelined behind the hello: the caller waits for its answer.
        if let Some(acceptor) = node.acceptor() {
            acceptor.serve(
                Stream::Tcp(stream),
                Peer { address: Some(address.ip()), node: Some(caller.node), connection: 0 },
            );
        }
        return Ok(());
    }
    messages(node, stream, buffer, caller.node).await
}

/// Whether the caller is a node of this cluster.
fn greet(
    node: &ClusterNode,
    hello: &NodeHelloRequest,
    address: SocketAddr,
) -> (NodeHelloResponse, Option<Caller>) {
    let own = node.peers().hello();
    let refusal = if hello.cluster_name != own.cluster_name {
        Some((
            ErrorCode::InconsistentClusterId,
            format!("this node belongs to the cluster `{}`, not `{}`", own.cluster_name, hello.cluster_name),
        ))
    } else if let (Some(theirs), Some(ours)) = (&hello.cluster_id, &own.cluster_id)
        && theirs != ours
    {
        Some((
            ErrorCode::InconsistentClusterId,
            format!("this node belongs to the cluster with the id {ours}, not {theirs}"),
        ))
    } else if hello.expected_node_id >= 0 && hello.expected_node_id != own.node_id {
        Some((
            ErrorCode::InvalidRequest,
            format!("this is node {}, not {}", own.node_id, hello.expected_node_id),
        ))
    } else if hello.node_id == own.node_id && hello.directory_id != own.directory_id {
        Some((ErrorCode::DuplicateBrokerRegistration, format!("this node has the id {}, too", own.node_id)))
    } else {
        None
    };
    let mut answer = NodeHelloResponse {
        cluster_id: own.cluster_id,
        node_id: own.node_id,
        incarnation_id: own.incarnation_id,
        directory_id: own.directory_id,
        software_version: own.software_version,
        ..NodeHelloResponse::default()
    };
    if let Some((code, message)) = refusal {
        tracing::warn!(%address, node = hello.node_id, message, "refused: a connection of a node");
        answer.error_code = code.code();
        answer.error_message = Some(message);
        return (answer, None);
    }
    let caller = Caller { node: BrokerId::new(hello.node_id), is_for_records: hello.is_for_records };
    (answer, Some(caller))
}

/// Answers messages, each as soon as it is done.
async fn messages(
    node: &Arc<ClusterNode>,
    stream: TcpStream,
    mut buffer: BytesMut,
    caller: BrokerId,
) -> io::Result<()> {
    let (mut read, mut write) = stream.into_split();
    let (answers, mut done) = mpsc::channel::<Bytes>(IN_WORK_MAX);
    let writing = tokio::spawn(async move {
        while let Some(answer) = done.recv().await {
            write.write_all(&answer).await?;
        }
        Ok::<_, io::Error>(())
    });
    let places = Arc::new(Semaphore::new(IN_WORK_MAX));
    let mut said_heartbeat = false;
    let ended = loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break Ok(()) };
        let frame = match read_request(&mut read, &mut buffer).await {
            Ok(frame) => frame,
            Err(error) => break Err(error),
        };
        let mut body = Decoder::new(frame);
        let header = match RequestHeader::decode(&mut body) {
            Ok(header) => header,
            Err(error) => break Err(invalid(error)),
        };
        said_heartbeat |= header.request_api_key == ApiKey::BrokerHeartbeat.code();
        let (node, answers) = (Arc::clone(node), answers.clone());
        tokio::spawn(async move {
            match answer(&node, &header, body, caller).await {
                // A connection that has ended meanwhile needs no answer.
                Ok(answer) => drop(answers.send(answer).await),
                Err(error) => {
                    tracing::warn!(%caller, key = header.request_api_key, %error, "a message of a node cannot be answered")
                }
            }
            drop(place);
        });
    };
    drop(answers);
    if said_heartbeat {
        node.heartbeat_connection_ended(caller);
    }
    writing.abort();
    match ended {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        ended => ended,
    }
}

async fn read_request<S: AsyncReadExt + Unpin>(stream: &mut S, buffer: &mut BytesMut) -> io::Result<Bytes> {
    read_frame_within(stream, buffer, limits::REQUEST_BYTES_MAX).await
}

fn encode<M: Message>(header: &RequestHeader, key: ApiKey, response: &M) -> io::Result<Bytes> {
    let frame = frame::encode_response(key, header.request_api_version, header.correlation_id, response);
    frame.map(towpath_wire::Segments::into_bytes).map_err(invalid)
}

fn decode<R: Request>(header: &RequestHeader, mut body: Decoder) -> io::Result<R> {
    R::decode(&mut body, header.request_api_version).map_err(invalid)
}

async fn ask<R: ControllerRequest>(
    node: &ClusterNode,
    header: &RequestHeader,
    body: Decoder,
) -> io::Result<Bytes> {
    let request: R = decode(header, body)?;
    encode(header, R::KEY, &request.answer(node.controller()).await)
}

async fn answer(
    node: &Arc<ClusterNode>,
    header: &RequestHeader,
    body: Decoder,
    caller: BrokerId,
) -> io::Result<Bytes> {
    match ApiKey::try_from(header.request_api_key).map_err(invalid)? {
        ApiKey::Quorum => {
            let request: QuorumRequest = decode(header, body)?;
            let response = match node.quorum().handle(request.message).await {
                Ok(message) => QuorumResponse { message, ..QuorumResponse::default() },
                Err(error) => QuorumResponse {
                    error_code: ErrorCode::UnknownServerError.code(),
                    error_message: Some(ErrorChain(&error).to_string()),
                    ..QuorumResponse::default()
                },
            };
            encode(header, ApiKey::Quorum, &response)
        }
        ApiKey::BrokerRegistration => {
            let request: BrokerRegistrationRequest = decode(header, body)?;
            super::controller::make_way(node, &request).await;
            encode(header, ApiKey::BrokerRegistration, &request.answer(node.controller()).await)
        }
        ApiKey::BrokerHeartbeat => ask::<BrokerHeartbeatRequest>(node, header, body).await,
        ApiKey::AlterPartition => ask::<AlterPartitionRequest>(node, header, body).await,
        ApiKey::AssignReplicasToDirs => ask::<AssignReplicasToDirsRequest>(node, header, body).await,
        ApiKey::AllocateProducerIds => ask::<AllocateProducerIdsRequest>(node, header, body).await,
        ApiKey::Forward => {
            let request: ForwardRequest = decode(header, body)?;
            let response: ForwardResponse = super::forward::answer(node, request, caller).await;
            encode(header, ApiKey::Forward, &response)
        }
        key => Err(io::Error::new(io::ErrorKind::Unsupported, format!("{key} is not for nodes"))),
    }
}
