//! What members say to each other. The transport sees bytes only; their form is this module's.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use uuid::Uuid;

use super::codec::{CodecError, Reader, Writer};
use super::types::{LogId, Member, SnapshotMeta, Types, Vote};
use crate::RecordError;

/// The version of the form: one byte in front of every message.
const VERSION: u8 = 2;

/// Who speaks to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Envelope {
    /// The name of the cluster.
    pub(crate) cluster: String,
    /// The id of the cluster; empty while the sender does not know it. Two clusters may have the same name.
    pub(crate) cluster_id: String,
    pub(crate) from: u64,
    /// The sender as it is now.
    pub(crate) sender: Member,
    pub(crate) to: u64,
    /// The data directory that is meant. Another one has not promised what this one has.
    pub(crate) directory: Option<Uuid>,
}

/// A piece of a snapshot.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    /// Bytes of the whole snapshot.
    pub(crate) total: u64,
    pub(crate) at: u64,
    pub(crate) bytes: Bytes,
}

/// What is asked.
#[derive(Debug)]
pub(crate) enum Request {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    Chunk(Chunk),
    Transfer(TransferLeaderRequest<Types>),
    /// What do you have?
    Hello,
    /// Take me in, as a voter if the configuration says so and `wants_vote` does.
    Join {
        wants_vote: bool,
    },
    /// Have you lost the leader of this term too?
    LeaderLost {
        leader: u64,
        term: u64,
    },
}

/// What a member has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) directory: Uuid,
    /// Whether it is a member of a cluster that was formed.
    pub(crate) initialized: bool,
    pub(crate) leader: Option<(u64, String)>,
    /// The directory that it knows the asker by.
    pub(crate) known_as: Option<Uuid>,
    /// The controllers that it is configured with.
    pub(crate) voters: Vec<u64>,
}

/// What is answered.
#[derive(Debug)]
pub(crate) enum Reply {
    Append(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    /// The chunk was taken, and this one is next.
    Next(u64),
    /// The snapshot is installed, or of an older leader.
    Installed(Vote),
    /// Whether leadership was taken.
    Transfer(bool),
    Hello(Greeting),
    /// The leader works on it.
    Joining,
    /// Ask the leader.
    NotLeader(Option<(u64, String)>),
    LeaderLost(bool),
    /// The message was for somebody else, or may not be.
    Refused(String),
}

/// A message that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("a message of version {0}, and this version of Towpath reads only version {VERSION}")]
    Version(u8),
    #[error(transparent)]
    Content(#[from] CodecError),
}

fn leader(writer: &mut Writer, leader: Option<&(u64, String)>) {
    writer.option(leader, |writer, (id, address): &(u64, String)| writer.u64(*id).text(address));
}

fn read_leader(reader: &mut Reader<'_>) -> Result<Option<(u64, String)>, CodecError> {
    reader.option(|reader| Ok((reader.u64()?, reader.text()?)))
}

fn vote_request(writer: &mut Writer, request: &VoteRequest<Types>) {
    writer.vote(&request.vote).option(request.last_log_id.as_ref(), Writer::log_id);
    writer.bool(request.leadership_transfer);
}

fn read_vote_request(reader: &mut Reader<'_>) -> Result<VoteRequest<Types>, CodecError> {
    let mut request = VoteRequest::new(reader.vote()?, reader.option(Reader::log_id)?);
    request.leadership_transfer = reader.bool()?;
    Ok(request)
}

/// Encodes a request.
pub(crate) fn encode(envelope: &Envelope, request: &Request) -> Result<Bytes, RecordError> {
    let mut out = Writer::default();
    out.u8(VERSION).text(&envelope.cluster).text(&envelope.cluster_id).u64(envelope.from);
    out.text(&envelope.sender.address).uuid(envelope.sender.directory).u64(envelope.to);
    out.option(envelope.directory.as_ref(), |out, directory| out.uuid(*directory));
    match request {
        Request::Append(append) => {
            out.u8(1).vote(&append.vote).option(append.prev_log_id.as_ref(), Writer::log_id);
            out.option(append.leader_commit.as_ref(), Writer::log_id).count(append.entries.len());
            for entry in &append.entries {
                out.entry(entry)?;
            }
        }
        Request::Vote(vote) => vote_request(out.u8(2), vote),
        Request::PreVote(vote) => vote_request(out.u8(3), vote),
        Request::Chunk(chunk) => {
            out.u8(4).vote(&chunk.vote).snapshot_meta(&chunk.meta).u64(chunk.total).u64(chunk.at);
            out.slice(&chunk.bytes);
        }
        Request::Transfer(transfer) => {
            out.u8(5).vote(transfer.from_leader()).u64(*transfer.to_node_id());
            out.option(transfer.last_log_id(), Writer::log_id);
        }
        Request::Hello => {
            out.u8(6);
        }
        Request::Join { wants_vote } => {
            out.u8(7).bool(*wants_vote);
        }
        Request::LeaderLost { leader, term } => {
            out.u8(8).u64(*leader).u64(*term);
        }
    }
    Ok(Bytes::from(out.0))
}

fn version(reader: &mut Reader<'_>) -> Result<(), MessageError> {
    match reader.u8()? {
        VERSION => Ok(()),
        other => Err(MessageError::Version(other)),
    }
}

fn read_append(reader: &mut Reader<'_>) -> Result<AppendEntriesRequest<Types>, CodecError> {
    let vote = reader.vote()?;
    let prev_log_id = reader.option(Reader::log_id)?;
    let leader_commit = reader.option(Reader::log_id)?;
    let count = reader.u32()?;
    let entries = (0..count).map(|_| reader.entry()).collect::<Result<Vec<_>, _>>()?;
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

/// Decodes a request.
pub(crate) fn decode(message: &Bytes) -> Result<(Envelope, Request), MessageError> {
    let mut reader = Reader(message);
    version(&mut reader)?;
    let (cluster, cluster_id, from) = (reader.text()?, reader.text()?, reader.u64()?);
    let sender = Member { address: reader.text()?, directory: reader.uuid()? };
    let (to, directory) = (reader.u64()?, reader.option(Reader::uuid)?);
    let envelope = Envelope { cluster, cluster_id, from, sender, to, directory };
    let request = match reader.u8()? {
        1 => Request::Append(read_append(&mut reader)?),
        2 => Request::Vote(read_vote_request(&mut reader)?),
        3 => Request::PreVote(read_vote_request(&mut reader)?),
        4 => {
            let (vote, meta) = (reader.vote()?, reader.snapshot_meta()?);
            let (total, at) = (reader.u64()?, reader.u64()?);
            let bytes = message.slice_ref(reader.slice()?);
            Request::Chunk(Chunk { vote, meta, total, at, bytes })
        }
        5 => {
            let (vote, to) = (reader.vote()?, reader.u64()?);
            Request::Transfer(TransferLeaderRequest::new(vote, to, reader.option(Reader::log_id)?))
        }
        6 => Request::Hello,
        7 => Request::Join { wants_vote: reader.bool()? },
        8 => Request::LeaderLost { leader: reader.u64()?, term: reader.u64()? },
        _ => return Err(CodecError::Range("the kind of a message").into()),
    };
    reader.end()?;
    Ok((envelope, request))
}

/// Encodes a reply.
pub(crate) fn encode_reply(reply: &Reply) -> Bytes {
    let mut out = Writer::default();
    out.u8(VERSION);
    match reply {
        Reply::Append(AppendEntriesResponse::Success) => {
            out.u8(1);
        }
        Reply::Append(AppendEntriesResponse::PartialSuccess(matched)) => {
            out.u8(2).option(matched.as_ref(), Writer::log_id);
        }
        Reply::Append(AppendEntriesResponse::Conflict) => {
            out.u8(3);
        }
        Reply::Append(AppendEntriesResponse::HigherVote(vote)) => {
            out.u8(4).vote(vote);
        }
        Reply::Vote(response) => {
            out.u8(5).vote(&response.vote).bool(response.vote_granted);
            out.option(response.last_log_id.as_ref(), Writer::log_id);
        }
        Reply::Next(at) => {
            out.u8(6).u64(*at);
        }
        Reply::Installed(vote) => {
            out.u8(7).vote(vote);
        }
        Reply::Transfer(taken) => {
            out.u8(8).bool(*taken);
        }
        Reply::Hello(greeting) => {
            out.u8(9).uuid(greeting.directory).bool(greeting.initialized);
            leader(&mut out, greeting.leader.as_ref());
            out.option(greeting.known_as.as_ref(), |out, directory| out.uuid(*directory));
            out.count(greeting.voters.len());
            for voter in &greeting.voters {
                out.u64(*voter);
            }
        }
        Reply::Joining => {
            out.u8(10);
        }
        Reply::NotLeader(other) => leader(out.u8(11), other.as_ref()),
        Reply::LeaderLost(lost) => {
            out.u8(12).bool(*lost);
        }
        Reply::Refused(reason) => {
            out.u8(13).text(reason);
        }
    }
    Bytes::from(out.0)
}

/// Decodes a reply.
pub(crate) fn decode_reply(message: &[u8]) -> Result<Reply, MessageError> {
    let mut reader = Reader(message);
    version(&mut reader)?;
    let log_id =
        |reader: &mut Reader<'_>| -> Result<Option<LogId>, CodecError> { reader.option(Reader::log_id) };
    let reply = match reader.u8()? {
        1 => Reply::Append(AppendEntriesResponse::Success),
        2 => Reply::Append(AppendEntriesResponse::PartialSuccess(log_id(&mut reader)?)),
        3 => Reply::Append(AppendEntriesResponse::Conflict),
        4 => Reply::Append(AppendEntriesResponse::HigherVote(reader.vote()?)),
        5 => {
            let (vote, granted) = (reader.vote()?, reader.bool()?);
            Reply::Vote(VoteResponse::new(vote, log_id(&mut reader)?, granted))
        }
        6 => Reply::Next(reader.u64()?),
        7 => Reply::Installed(reader.vote()?),
        8 => Reply::Transfer(reader.bool()?),
        9 => Reply::Hello(Greeting {
            directory: reader.uuid()?,
            initialized: reader.bool()?,
            leader: read_leader(&mut reader)?,
            known_as: reader.option(Reader::uuid)?,
            voters: {
                let count = reader.u32()?;
                (0..count).map(|_| reader.u64()).collect::<Result<_, _>>()?
            },
        }),
        10 => Reply::Joining,
        11 => Reply::NotLeader(read_leader(&mut reader)?),
        12 => Reply::LeaderLost(reader.bool()?),
        13 => Reply::Refused(reader.text()?),
        _ => return Err(CodecError::Range("the kind of a reply").into()),
    };
    reader.end()?;
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quorum::types::{StoredMembership, log_id};

    #[test]
    fn messages_survive_their_bytes_and_half_of_one_is_none() {
        let sender = Member { address: "h:1".to_owned(), directory: Uuid::from_u128(1) };
        let envelope = Envelope {
            cluster: "eu".to_owned(),
            cluster_id: "id".to_owned(),
            from: 1,
            sender,
            to: 2,
            directory: Some(Uuid::from_u128(2)),
        };
        let vote = Vote::new_committed(3, 1);
        let meta =
            SnapshotMeta { last_log_id: Some(log_id(1, 5)), last_membership: StoredMembership::default() };
        let requests = [
            Request::Append(AppendEntriesRequest {
                vote,
                prev_log_id: Some(log_id(2, 7)),
                entries: vec![openraft::entry::RaftEntry::new_blank(log_id(3, 8))],
                leader_commit: None,
            }),
            Request::Vote(VoteRequest::new(vote, Some(log_id(2, 7)))),
            Request::PreVote(VoteRequest::new(vote, None)),
            Request::Chunk(Chunk { vote, meta, total: 9, at: 3, bytes: Bytes::from_static(b"abc") }),
            Request::Transfer(TransferLeaderRequest::new(vote, 2, None)),
            Request::Hello,
            Request::Join { wants_vote: true },
            Request::LeaderLost { leader: 1, term: 3 },
        ];
        for request in requests {
            let bytes = encode(&envelope, &request).unwrap();
            let (read, again) = decode(&bytes).unwrap();
            assert_eq!(read, envelope);
            assert_eq!(format!("{again:?}"), format!("{request:?}"));
            for cut in 0..bytes.len() {
                assert!(decode(&bytes.slice(..cut)).is_err(), "{request:?} of {cut} bytes");
            }
        }
        assert!(matches!(decode(&Bytes::from_static(b"\x01")), Err(MessageError::Version(1))));
    }

    #[test]
    fn replies_survive_their_bytes() {
        let greeting = Greeting {
            directory: Uuid::from_u128(1),
            initialized: true,
            leader: Some((1, "h:1".to_owned())),
            known_as: Some(Uuid::from_u128(2)),
            voters: vec![1, 2, 3],
        };
        let vote = Vote::new_committed(3, 1);
        let replies = [
            Reply::Append(AppendEntriesResponse::Success),
            Reply::Append(AppendEntriesResponse::PartialSuccess(Some(log_id(1, 2)))),
            Reply::Append(AppendEntriesResponse::Conflict),
            Reply::Append(AppendEntriesResponse::HigherVote(vote)),
            Reply::Vote(VoteResponse::new(vote, Some(log_id(1, 2)), true)),
            Reply::Next(7),
            Reply::Installed(vote),
            Reply::Transfer(true),
            Reply::Hello(greeting),
            Reply::Joining,
            Reply::NotLeader(Some((3, "h:3".to_owned()))),
            Reply::NotLeader(None),
            Reply::LeaderLost(true),
            Reply::Refused("no".to_owned()),
        ];
        for reply in replies {
            let bytes = encode_reply(&reply);
            assert_eq!(format!("{:?}", decode_reply(&bytes).unwrap()), format!("{reply:?}"));
            for cut in 0..bytes.len() {
                assert!(decode_reply(&bytes[..cut]).is_err(), "{reply:?} of {cut} bytes");
            }
        }
    }
}
