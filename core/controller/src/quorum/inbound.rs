//! What other members ask of this one.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use openraft::errors::RaftError;
use openraft::raft::{AppendEntriesRequest, VoteRequest};

use super::message::{self, Chunk, Envelope, Greeting, Reply, Request};
use super::types::{Snapshot, Types, Vote};
use super::{Node, QuorumError};

/// Bytes of a snapshot that a member takes from another one.
const SNAPSHOT_BYTES_MAX: u64 = super::disk::FILE_BYTES_MAX;

/// A snapshot on its way in.
#[derive(Debug)]
pub(crate) struct Incoming {
    vote: Vote,
    meta: super::types::SnapshotMeta,
    total: u64,
    content: Vec<u8>,
}

fn stopped<E: std::error::Error>(error: RaftError<Types, E>) -> QuorumError {
    QuorumError::Stopped(error.to_string())
}

impl Node {
    /// Answers one message.
    pub(crate) async fn handle(self: &Arc<Self>, message: &Bytes) -> Result<Bytes, QuorumError> {
        let (envelope, request) =
            message::decode(message).map_err(|error| QuorumError::Message(error.to_string()))?;
        let reply = match self.refusal(&envelope) {
            Some(reason) => Reply::Refused(reason),
            None => {
                self.peers.saw(envelope.from, &envelope.sender);
                self.answer(&envelope, request).await?
            }
        };
        Ok(message::encode_reply(&reply))
    }

    /// Why a message is not for this member.
    fn refusal(&self, envelope: &Envelope) -> Option<String> {
        let peers = &self.peers;
        if envelope.cluster != peers.cluster {
            return Some(format!("this is the cluster `{}`, not `{}`", peers.cluster, envelope.cluster));
        }
        let (ours, theirs) = (peers.cluster_id(), &envelope.cluster_id);
        if !ours.is_empty() && !theirs.is_empty() && ours != *theirs {
            // One of the two has the wrong disk, or the wrong addresses. It asks again and again.
            if peers.heard_foreign(envelope.from, theirs) {
                let from = envelope.from;
                tracing::error!(from, ours, theirs, "a node of another cluster of the same name is refused");
            }
            return Some(format!("this is the cluster with the id {ours}, not {theirs}"));
        }
        if envelope.to != peers.id {
            return Some(format!("this is node {}, not {}", peers.id, envelope.to));
        }
        // An empty disk in the place of one that held votes and entries must not answer for it: a quorum that counts
        // on what that one had acknowledged would lose committed entries.
        envelope
            .directory
            .filter(|directory| *directory != peers.this.directory)
            .map(|_| format!("node {} has another data directory now", peers.id))
    }

    async fn answer(self: &Arc<Self>, envelope: &Envelope, request: Request) -> Result<Reply, QuorumError> {
        match request {
            Request::Append(append) => self.append(envelope.from, append).await,
            Request::Vote(vote) => self.vote(vote).await,
            Request::PreVote(vote) => Ok(Reply::Vote(self.raft.pre_vote(vote).await.map_err(stopped)?)),
            Request::Chunk(chunk) => self.chunk(envelope.from, chunk).await,
            Request::Transfer(transfer) => {
                let taken = self.raft.handle_transfer_leader(transfer).await;
                Ok(Reply::Transfer(taken.map_err(|error| QuorumError::Stopped(error.to_string()))?.is_ok()))
            }
            Request::Hello => Ok(Reply::Hello(self.greeting(envelope.from))),
            Request::Join { wants_vote } => Ok(self.join(envelope, wants_vote)),
            Request::LeaderLost { leader, term } => Ok(Reply::LeaderLost(self.has_lost(leader, term))),
        }
    }

    async fn append(&self, from: u64, append: AppendEntriesRequest<Types>) -> Result<Reply, QuorumError> {
        let response = self.raft.append_entries(append).await.map_err(stopped)?;
        if !matches!(response, openraft::raft::AppendEntriesResponse::HigherVote(_)) {
            self.heard_from_leader(from);
        }
        Ok(Reply::Append(response))
    }

    async fn vote(&self, mut vote: VoteRequest<Types>) -> Result<Reply, QuorumError> {
        // A leader's lease keeps others from unseating it while it is well. Here this member has seen it go itself, so
        // the lease protects nobody; it is no matter of safety.
        vote.leadership_transfer |= self.is_leader_lost();
        Ok(Reply::Vote(self.raft.vote(vote).await.map_err(stopped)?))
    }

    fn greeting(&self, asker: u64) -> Greeting {
        let membership = self.membership();
        Greeting {
            directory: self.peers.this.directory,
            initialized: membership.voter_ids().next().is_some(),
            leader: self.leader(),
            known_as: membership.get_node(&asker).map(|member| member.directory),
            voters: self.peers.voters.keys().copied().collect(),
        }
    }

    /// Takes a piece of a snapshot; the last one installs it.
    async fn chunk(&self, from: u64, chunk: Chunk) -> Result<Reply, QuorumError> {
        let mut incoming = self.incoming.lock().await;
        if chunk.total > SNAPSHOT_BYTES_MAX {
            return Ok(Reply::Refused(format!("a snapshot of {} bytes is too large", chunk.total)));
        }
        let goes_on = incoming
            .as_ref()
            .is_some_and(|old| old.vote == chunk.vote && old.meta == chunk.meta && old.total == chunk.total);
        if !goes_on {
            // Another leader's, or a newer one: begin anew.
            let (vote, meta, total) = (chunk.vote, chunk.meta.clone(), chunk.total);
            *incoming = Some(Incoming { vote, meta, total, content: Vec::new() });
        }
        let Some(taken) = incoming.as_mut() else { return Ok(Reply::Next(0)) };
        if taken.content.len() as u64 == chunk.at
            && chunk.at + chunk.bytes.len() as u64 <= chunk.total
            && !(chunk.bytes.is_empty() && chunk.at < chunk.total)
        {
            taken.content.extend_from_slice(&chunk.bytes);
        }
        if (taken.content.len() as u64) < taken.total {
            let next = taken.content.len() as u64;
            self.heard_from_leader(from);
            return Ok(Reply::Next(next));
        }
        let Some(done) = incoming.take() else { return Ok(Reply::Next(0)) };
        let snapshot = Snapshot { meta: done.meta, snapshot: Bytes::from(done.content) };
        let installed = self.raft.install_full_snapshot(done.vote, snapshot).await;
        let installed = installed.map_err(|error| QuorumError::Stopped(error.to_string()))?;
        self.heard_from_leader(from);
        Ok(Reply::Installed(installed.vote))
    }

    /// Notes that `from` leads and lives.
    fn heard_from_leader(&self, from: u64) {
        *self.last_contact.lock() = Some(Instant::now());
        let mut lost = self.lost.lock();
        if lost.as_ref().is_some_and(|lost| lost.leader == from) {
            *lost = None;
        }
    }
}
