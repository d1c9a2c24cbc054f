//! Raft's calls, over whatever carries messages between nodes.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{RaftNetworkFactory, RaftNetworkV2};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use towpath_types::BrokerId;
use uuid::Uuid;

use super::QuorumConfig;
use super::message::{self, Chunk, Envelope, Reply, Request};
use super::types::{Member, Snapshot, Types, Vote, broker_id, node_id};
use crate::MetadataImage;

/// Bytes of a snapshot in one message.
pub(crate) const CHUNK_BYTES: usize = 512 * 1024;
/// How long entries may take to be written by a member that answers at all: it syncs its disk.
const APPEND_TIMEOUT: Duration = Duration::from_secs(2);
/// Nodes whose word about themselves is kept.
const SEEN_MAX: usize = 10_000;
/// How often a snapshot may begin anew, because the receiver took another one meanwhile.
const RESTARTS_MAX: u32 = 3;
/// How long a piece of a snapshot may take; the last one includes its installation.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);

/// A node that a message is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// The node.
    pub id: BrokerId,
    /// Its host and port.
    pub address: String,
}

/// Carries messages of the quorum to other nodes.
#[async_trait::async_trait]
pub trait QuorumTransport: Send + Sync + 'static {
    /// Brings `message` to [`super::Quorum::handle`] of that node and returns its answer. Dropping the future may end
    /// the call. Messages have at most about 1 MiB, or one metadata entry.
    ///
    /// # Errors
    /// If there is no answer in time, or none at all. The message may have arrived all the same.
    async fn call(&self, to: &PeerAddress, message: Bytes, timeout: Duration) -> io::Result<Bytes>;
}

/// Who this member is, where the others are, and how to reach them.
pub(crate) struct Peers {
    pub(crate) cluster: String,
    pub(crate) id: u64,
    pub(crate) this: Member,
    /// The configured controllers.
    pub(crate) voters: BTreeMap<u64, String>,
    /// The id of the cluster by what else is on the disk; empty if it does not say.
    known_cluster_id: String,
    images: watch::Receiver<Arc<MetadataImage>>,
    /// What others said of themselves.
    seen: RwLock<BTreeMap<u64, Member>>,
    /// The last node of another cluster that spoke to this one, with the id of its cluster.
    foreign: Mutex<Option<(u64, String)>>,
    transport: Arc<dyn QuorumTransport>,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers").field("id", &self.id).field("this", &self.this).finish_non_exhaustive()
    }
}

impl Peers {
    pub(crate) fn new(
        config: &QuorumConfig,
        images: watch::Receiver<Arc<MetadataImage>>,
        transport: Arc<dyn QuorumTransport>,
    ) -> Self {
        let voters = config.voters.iter().map(|(id, address)| (node_id(*id), address.clone()));
        Self {
            cluster: config.cluster_name.clone(),
            id: node_id(config.id),
            this: Member { address: config.address.clone(), directory: config.directory },
            voters: voters.collect(),
            known_cluster_id: config.cluster_id.clone(),
            images,
            seen: RwLock::default(),
            foreign: Mutex::default(),
            transport,
        }
    }

    /// The id of the cluster that this member belongs to; empty while it does not know.
    pub(crate) fn cluster_id(&self) -> String {
        let images = self.images.borrow();
        let known = if images.cluster_id().is_empty() { &self.known_cluster_id } else { images.cluster_id() };
        known.to_owned()
    }

    /// Notes that a node of another cluster has spoken; says whether that is new.
    pub(crate) fn heard_foreign(&self, id: u64, cluster_id: &str) -> bool {
        let mut last = self.foreign.lock();
        let is_known = last.as_ref().is_some_and(|(known, of)| *known == id && of == cluster_id);
        if !is_known {
            *last = Some((id, cluster_id.to_owned()));
        }
        !is_known
    }

    /// Notes where a member is that has just spoken.
    pub(crate) fn saw(&self, id: u64, member: &Member) {
        if self.seen.read().get(&id) == Some(member) {
            return;
        }
        let mut seen = self.seen.write();
        if seen.len() < SEEN_MAX || seen.contains_key(&id) {
            seen.insert(id, member.clone());
        }
    }

    /// What the member said of itself in this process's life.
    pub(crate) fn seen(&self, id: u64) -> Option<Member> {
        self.seen.read().get(&id).cloned()
    }

    /// Where a member may be, the likeliest first: where it spoke from, where the membership and where the
    /// configuration say.
    fn addresses(&self, id: u64, member: Option<&Member>) -> Vec<String> {
        let mut addresses = Vec::new();
        let seen = self.seen(id).filter(|seen| member.is_none_or(|known| known.directory == seen.directory));
        let known = member.map(|member| member.address.clone());
        for address in
            seen.map(|seen| seen.address).into_iter().chain(known).chain(self.voters.get(&id).cloned())
        {
            if !address.is_empty() && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// Sends one message to an address.
    pub(crate) async fn call(
        &self,
        to: PeerAddress,
        directory: Option<Uuid>,
        request: &Request,
        timeout: Duration,
    ) -> io::Result<Reply> {
        let number = super::types::node_id(to.id);
        let envelope = Envelope {
            cluster: self.cluster.clone(),
            cluster_id: self.cluster_id(),
            from: self.id,
            sender: self.this.clone(),
            to: number,
            directory,
        };
        let invalid =
            |error: &dyn std::error::Error| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
        let message = message::encode(&envelope, request).map_err(|error| invalid(&error))?;
        let call = self.transport.call(&to, message, timeout);
        let answer = tokio::time::timeout(timeout, call)
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))?;
        match message::decode_reply(&answer).map_err(|error| invalid(&error))? {
            Reply::Refused(reason) => Err(io::Error::other(reason)),
            reply => Ok(reply),
        }
    }

    /// Asks a node wherever it may be, whichever data directory it has.
    pub(crate) async fn ask(
        &self,
        id: u64,
        member: Option<&Member>,
        request: &Request,
        timeout: Duration,
    ) -> io::Result<Reply> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("node {id} has no known address"));
        for address in self.addresses(id, member) {
            let to = PeerAddress { id: broker_id(id), address };
            match self.call(to, None, request, timeout).await {
                Ok(reply) => return Ok(reply),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Makes a [`Client`] for every member.
#[derive(Debug, Clone)]
pub(crate) struct Network(pub(crate) Arc<Peers>);

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &Member) -> Client {
        Client { peers: Arc::clone(&self.0), target, member: node.clone(), failures: 0 }
    }
}

/// One member as another one sees it.
#[derive(Debug)]
pub(crate) struct Client {
    peers: Arc<Peers>,
    target: u64,
    member: Member,
    failures: usize,
}

fn unexpected(reply: &Reply) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("an answer to something else: {reply:?}"))
}

impl Client {
    async fn call(&mut self, request: &Request, timeout: Duration) -> io::Result<Reply> {
        let addresses = self.peers.addresses(self.target, Some(&self.member));
        let Some(address) = addresses.get(self.failures % addresses.len().max(1)) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
        };
        let to = PeerAddress { id: broker_id(self.target), address: address.clone() };
        let result = self.peers.call(to, Some(self.member.directory), request, timeout).await;
        // The next call tries the next place where it may be.
        self.failures = if result.is_ok() { self.failures } else { self.failures.wrapping_add(1) };
        result
    }

    async fn vote_with(
        &mut self,
        request: Request,
        option: &RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.call(&request, option.soft_ttl()).await.map_err(rpc_error)? {
            Reply::Vote(response) => Ok(response),
            other => Err(rpc_error(unexpected(&other))),
        }
    }

    async fn send_snapshot(&mut self, vote: Vote, snapshot: Snapshot) -> io::Result<Vote> {
        let content = snapshot.snapshot;
        let (total, mut at) = (content.len() as u64, 0);
        let mut restarts = 0;
        loop {
            let from = usize::try_from(at).unwrap_or(usize::MAX).min(content.len());
            let to = (from + CHUNK_BYTES).min(content.len());
            let bytes = content.slice(from..to);
            let chunk = Chunk { vote, meta: snapshot.meta.clone(), total, at, bytes };
            match self.call(&Request::Chunk(chunk), CHUNK_TIMEOUT).await? {
                Reply::Installed(vote) => return Ok(vote),
                Reply::Next(next) if next > at && next <= total => at = next,
                Reply::Next(next) if restarts < RESTARTS_MAX => {
                    (at, restarts) = (next.min(total), restarts + 1)
                }
                other => return Err(unexpected(&other)),
            }
        }
    }
}

fn rpc_error(error: io::Error) -> RPCError<Types> {
    if error.kind() == io::ErrorKind::TimedOut {
        RPCError::Network(NetworkError::new(&error))
    } else {
        RPCError::Unreachable(Unreachable::new(&error))
    }
}

impl RaftNetworkV2<Types> for Client {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let timeout = if rpc.entries.is_empty() { option.soft_ttl() } else { APPEND_TIMEOUT };
        match self.call(&Request::Append(rpc), timeout).await.map_err(rpc_error)? {
            Reply::Append(response) => Ok(response),
            other => Err(rpc_error(unexpected(&other))),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.vote_with(Request::Vote(rpc), &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.vote_with(Request::PreVote(rpc), &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot) => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(error) => Err(StreamingError::Unreachable(Unreachable::new(&error))),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self.call(&Request::Transfer(req), option.soft_ttl()).await.map_err(rpc_error)? {
            Reply::Transfer(true) => Ok(Ok(())),
            Reply::Transfer(false) => Err(rpc_error(io::Error::other("the member did not take leadership"))),
            other => Err(rpc_error(unexpected(&other))),
        }
    }
}
