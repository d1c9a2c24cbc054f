//! Several members over links that can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use towpath_log::sim::SimStorage;
use towpath_types::{BrokerId, ProducerId, TopicId, TopicName};
use uuid::Uuid;

use crate::quorum::message::{self, Envelope, Reply, Request};
use crate::quorum::types::Member;
use crate::quorum::{PeerAddress, Quorum, QuorumConfig, QuorumTransport};
use crate::{ControllerError, Decision, MetadataImage, MetadataRecord, SnapshotPolicy};

/// Who can be reached where, and which links are cut.
#[derive(Default)]
struct Net {
    nodes: Mutex<BTreeMap<String, Arc<Quorum>>>,
    cut: Mutex<BTreeSet<(i32, i32)>>,
}

struct Link {
    net: Arc<Net>,
    from: i32,
}

impl Net {
    fn is_cut(&self, from: i32, to: i32) -> bool {
        self.cut.lock().contains(&(from, to))
    }
}

#[async_trait::async_trait]
impl QuorumTransport for Link {
    async fn call(&self, to: &PeerAddress, message: Bytes, _timeout: Duration) -> io::Result<Bytes> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let node = self.net.nodes.lock().get(&to.address).cloned().ok_or_else(refused)?;
        if self.net.is_cut(self.from, to.id.get()) {
            return Err(refused());
        }
        assert!(message.len() < 2 * 1024 * 1024, "a message of {} bytes", message.len());
        let answer = node.handle(message).await.map_err(io::Error::other)?;
        if self.net.is_cut(to.id.get(), self.from) { Err(refused()) } else { Ok(answer) }
    }
}

struct Cluster {
    net: Arc<Net>,
    voters: Vec<i32>,
    disks: BTreeMap<i32, (SimStorage, Uuid)>,
    addresses: BTreeMap<i32, String>,
    running: BTreeMap<i32, Arc<Quorum>>,
    policy: SnapshotPolicy,
}

impl Cluster {
    fn new(voters: &[i32]) -> Self {
        Self {
            net: Arc::default(),
            voters: voters.to_vec(),
            disks: BTreeMap::new(),
            addresses: BTreeMap::new(),
            running: BTreeMap::new(),
            policy: SnapshotPolicy::default(),
        }
    }

    async fn formed(voters: &[i32]) -> Self {
        let mut cluster = Self::new(voters);
        for id in voters {
            cluster.start(*id).await;
        }
        cluster.leader().await;
        cluster
    }

    fn address(&self, id: i32) -> String {
        self.addresses.get(&id).cloned().unwrap_or_else(|| format!("node{id}:1"))
    }

    async fn start(&mut self, id: i32) -> Arc<Quorum> {
        let (disk, directory) =
            self.disks.entry(id).or_insert_with(|| (SimStorage::new(id as u64), Uuid::new_v4())).clone();
        let address = self.address(id);
        let dir = Path::new("/data/quorum").to_owned();
        let mut config = QuorumConfig::new(BrokerId::new(id), address.clone(), directory, dir);
        config.voters = self.voters.iter().map(|id| (BrokerId::new(*id), self.address(*id))).collect();
        config.cluster_name = "eu".to_owned();
        config.snapshots = self.policy;
        config.entries_kept = 20;
        config.change_timeout_ms = 3_000;
        let link = Link { net: Arc::clone(&self.net), from: id };
        let node = Quorum::start_on(config, Arc::new(link), Arc::new(disk)).await.unwrap();
        self.net.nodes.lock().insert(address, Arc::clone(&node));
        self.running.insert(id, Arc::clone(&node));
        node
    }

    /// The process is gone, in the middle of whatever it did.
    async fn kill(&mut self, id: i32) {
        self.net.nodes.lock().retain(|_, node| node.node.peers.id != id as u64);
        self.disks[&id].0.kill();
        self.running.remove(&id).unwrap().shutdown().await;
    }

    fn wipe(&mut self, id: i32) {
        self.disks.remove(&id);
    }

    fn cut(&self, one: i32, other: i32) {
        self.net.cut.lock().extend([(one, other), (other, one)]);
    }

    fn isolate(&self, id: i32) {
        self.disks.keys().filter(|other| **other != id).for_each(|other| self.cut(id, *other));
    }

    fn heal(&self) {
        self.net.cut.lock().clear();
    }

    fn ready(&self) -> Vec<i32> {
        let ready = self.running.iter().filter(|(_, node)| node.controller().borrow().is_self);
        ready.map(|(id, _)| *id).collect()
    }

    /// The one leader that is ready.
    async fn leader(&self) -> i32 {
        until("a leader", || self.ready().len() == 1).await;
        self.ready()[0]
    }

    async fn change(&self, name: &str) -> Result<(), ControllerError> {
        let leader = self.leader().await;
        self.running[&leader].change(|_| topic(name)).await.map(drop)
    }

    /// Changes something, however often the leader changes.
    async fn insist(&self, name: &str) {
        for _ in 0..100 {
            let leader = self.leader().await;
            let decide = |image: &MetadataImage| {
                if image.topic(name).is_some() { Decision::unchanged(()) } else { topic(name) }
            };
            if self.running[&leader].change(decide).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{name} could not be made");
    }

    async fn everywhere(&self, name: &str) {
        until(name, || self.running.values().all(|node| node.image().topic(name).is_some())).await;
    }

    fn assert_same(&self) {
        let images: Vec<_> = self.running.values().map(|node| node.image()).collect();
        assert!(images.windows(2).all(|pair| pair[0] == pair[1]));
    }

    async fn stop(mut self) {
        self.net.nodes.lock().clear();
        for (_, node) in std::mem::take(&mut self.running) {
            node.shutdown().await;
        }
    }
}

async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < Duration::from_secs(30), "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn topic(name: &str) -> Decision<()> {
    let name = TopicName::new(name).unwrap();
    Decision {
        records: vec![MetadataRecord::Topic { name, id: TopicId::random(), mirror: None }],
        answer: (),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_controllers_form_a_cluster_and_agree() {
    let mut cluster = Cluster::new(&[1, 2, 3]);
    cluster.start(1).await;
    cluster.start(2).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(cluster.ready().is_empty(), "a cluster is only formed by all controllers");
    cluster.start(3).await;
    let leader = cluster.leader().await;
    cluster.change("a").await.unwrap();
    assert!(cluster.running[&leader].image().topic("a").is_some(), "applied before the answer");
    cluster.everywhere("a").await;
    cluster.assert_same();
    let follower = cluster.voters.iter().find(|id| **id != leader).unwrap();
    until("the leader is known", || {
        cluster.running[follower].controller().borrow().leader == Some(BrokerId::new(leader))
    })
    .await;
    match cluster.running[follower].change(|_| topic("b")).await {
        Err(ControllerError::NotController { leader: Some((id, address)) }) => {
            assert_eq!((id, address), (BrokerId::new(leader), format!("node{leader}:1")));
        }
        other => panic!("{other:?}"),
    }
    let status = cluster.running[&leader].status();
    assert_eq!((status.leader, status.voters.len()), (Some(BrokerId::new(leader)), 3));
    until("all have caught up", || {
        let status = cluster.running[&leader].status();
        status.voters.iter().all(|voter| {
            voter.log_end_offset == Some(status.high_watermark) && voter.last_caught_up_timestamp_ms.is_some()
        })
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_leader_is_replaced_and_nothing_committed_is_lost() {
    let mut cluster = Cluster::formed(&[1, 2, 3]).await;
    for round in 0..3 {
        cluster.insist(&format!("before-{round}")).await;
        let leader = cluster.leader().await;
        let start = Instant::now();
        cluster.kill(leader).await;
        if round > 0 {
            cluster.running.values().for_each(|node| node.peer_lost(BrokerId::new(leader)));
        }
        let next = cluster.leader().await;
        println!("round {round}: a new leader after {:?}", start.elapsed());
        assert_ne!(next, leader);
        cluster.change(&format!("after-{round}")).await.unwrap();
        let returned = cluster.start(leader).await;
        cluster.everywhere(&format!("after-{round}")).await;
        assert!(returned.image().topic(&format!("before-{round}")).is_some());
    }
    cluster.assert_same();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hint_about_a_leader_that_lives_unseats_nobody() {
    let cluster = Cluster::formed(&[1, 2, 3]).await;
    let leader = cluster.leader().await;
    let term = cluster.running[&leader].controller().borrow().term;
    let follower = cluster.voters.iter().find(|id| **id != leader).unwrap();
    cluster.running[follower].peer_lost(BrokerId::new(leader));
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(cluster.leader().await, leader);
    assert_eq!(cluster.running[&leader].controller().borrow().term, term);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_are_killed_and_come_back() {
    let mut cluster = Cluster::formed(&[1, 2, 3]).await;
    for round in 0..3 {
        cluster.insist(&format!("t{round}")).await;
        for id in [1, 2, 3] {
            cluster.kill(id).await;
        }
        // Without power, too, what was committed is there.
        cluster.disks.values().for_each(|(disk, _)| disk.crash());
        for id in [1, 2, 3] {
            cluster.start(id).await;
        }
        cluster.leader().await;
        cluster.everywhere(&format!("t{round}")).await;
    }
    cluster.assert_same();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_move_to_other_addresses_at_once() {
    let mut cluster = Cluster::formed(&[1, 2, 3]).await;
    cluster.insist("a").await;
    for id in [1, 2, 3] {
        cluster.kill(id).await;
        cluster.addresses.insert(id, format!("moved{id}:7"));
    }
    for id in [1, 2, 3] {
        cluster.start(id).await;
    }
    let leader = cluster.leader().await;
    cluster.insist("b").await;
    cluster.everywhere("b").await;
    until("the membership knows", || {
        let status = cluster.running[&leader].status();
        status.voters.iter().all(|voter| voter.address.starts_with("moved"))
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_failed_disk_says_so_and_the_others_go_on() {
    let cluster = Cluster::formed(&[1, 2, 3]).await;
    let leader = cluster.leader().await;
    cluster.disks[&leader].0.fail_sync_after(0);
    // It is committed if the two others have it on their disks, whatever becomes of this one.
    let is_committed = cluster.running[&leader].change(|_| topic("a")).await.is_ok();
    let reason =
        tokio::time::timeout(Duration::from_secs(10), cluster.running[&leader].failed()).await.unwrap();
    assert!(reason.contains("sync"), "{reason}");
    until("another leads", || cluster.ready().len() == 1 && cluster.ready() != [leader]).await;
    cluster.insist("b").await;
    let next = &cluster.running[&cluster.leader().await];
    assert!(!is_committed || next.image().topic("a").is_some());
    assert!(cluster.running[&leader].image().topic("b").is_none(), "R14");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_joins_and_gets_a_snapshot() {
    let mut cluster = Cluster::new(&[1, 2, 3]);
    cluster.policy = SnapshotPolicy { records_min: 50 };
    for id in [1, 2, 3] {
        cluster.start(id).await;
    }
    let leader = cluster.leader().await;
    // More than one message holds.
    for index in 0..300 {
        let records = (0..20).map(|part| {
            let name = TopicName::new(&format!("{index}-{part}-{}", "x".repeat(200))).unwrap();
            MetadataRecord::Topic { name, id: TopicId::random(), mirror: None }
        });
        let records: Vec<_> = records.collect();
        let change = |_: &MetadataImage| Decision { records: records.clone(), answer: () };
        cluster.running[&leader].change(change).await.unwrap();
    }
    let learner = cluster.start(9).await;
    let end = cluster.running[&leader].image().next_offset();
    until("the learner has it all", || learner.image().next_offset() == end).await;
    cluster.change("last").await.unwrap();
    cluster.everywhere("last").await;
    cluster.assert_same();
    let status = cluster.running[&cluster.leader().await].status();
    assert_eq!(status.observers.iter().map(|member| member.id.get()).collect::<Vec<_>>(), [9]);
    // It comes back at another address.
    cluster.kill(9).await;
    cluster.addresses.insert(9, "elsewhere:9".to_owned());
    cluster.start(9).await;
    cluster.change("moved").await.unwrap();
    cluster.everywhere("moved").await;
    let leader = cluster.leader().await;
    until("the new address", || cluster.running[&leader].status().observers[0].address == "elsewhere:9")
        .await;
    cluster.running[&leader].remove_member(BrokerId::new(9)).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_with_an_empty_disk_comes_in_as_a_new_one() {
    let mut cluster = Cluster::formed(&[1, 2, 3]).await;
    cluster.insist("a").await;
    for victim in [1, 3] {
        let old = cluster.disks[&victim].1;
        cluster.kill(victim).await;
        cluster.wipe(victim);
        cluster.start(victim).await;
        let new = cluster.disks[&victim].1;
        assert_ne!(old, new);
        cluster.everywhere("a").await;
        until("it votes again", || {
            let ready = cluster.ready();
            ready.first().is_some_and(|leader| {
                let status = cluster.running[leader].status();
                status.voters.len() == 3
                    && status.voters.iter().any(|voter| voter.id.get() == victim && voter.directory == new)
            })
        })
        .await;
    }
    // Its vote counts: with it, one of the others can go.
    cluster.kill(2).await;
    cluster.insist("b").await;
    cluster.everywhere("b").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_changes_take_turns() {
    let cluster = Cluster::formed(&[1, 2, 3]).await;
    let leader = Arc::clone(&cluster.running[&cluster.leader().await]);
    let changes = (0..50).map(|_| {
        let leader = Arc::clone(&leader);
        tokio::spawn(async move {
            let decide = |image: &MetadataImage| {
                let first = image.next_producer_id();
                let next = ProducerId::new(first.get() + 10);
                let record = MetadataRecord::ProducerIds { broker_id: BrokerId::new(1), next };
                Decision { records: vec![record], answer: first.get() }
            };
            leader.change(decide).await.unwrap().0
        })
    });
    let mut firsts = Vec::new();
    for change in changes.collect::<Vec<_>>() {
        firsts.push(change.await.unwrap());
    }
    firsts.sort_unstable();
    assert_eq!(firsts, (0..50).map(|index| index * 10).collect::<Vec<_>>());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over() {
    let cluster = Cluster::formed(&[1, 2, 3]).await;
    for _ in 0..3 {
        let leader = cluster.leader().await;
        let to = *cluster.voters.iter().find(|id| **id != leader).unwrap();
        let start = Instant::now();
        cluster.running[&leader].transfer_leadership(Some(BrokerId::new(to))).await.unwrap();
        until("the other leads", || cluster.ready() == [to]).await;
        println!("handed over in {:?}", start.elapsed());
    }
    let leader = cluster.leader().await;
    cluster.running[&leader].transfer_leadership(None).await.unwrap();
    until("another leads", || cluster.ready().len() == 1 && cluster.ready() != [leader]).await;
    cluster.insist("a").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_majority_commits_nothing() {
    let cluster = Cluster::formed(&[1, 2, 3]).await;
    cluster.insist("before").await;
    let old = cluster.leader().await;
    let isolated = Arc::clone(&cluster.running[&old]);
    cluster.isolate(old);
    let doomed = tokio::spawn({
        let isolated = Arc::clone(&isolated);
        async move { isolated.change(|_| topic("doomed")).await.map(drop) }
    });
    until("the others have a leader", || cluster.ready().len() == 1 && cluster.ready() != [old]).await;
    assert!(matches!(isolated.change(|_| topic("late")).await, Err(ControllerError::NotController { .. })));
    cluster.insist("after").await;
    assert!(matches!(
        doomed.await.unwrap(),
        Err(ControllerError::Uncertain | ControllerError::NotController { .. })
    ));
    assert!(isolated.image().topic("doomed").is_none() && isolated.image().topic("after").is_none());
    cluster.heal();
    cluster.everywhere("after").await;
    assert!(isolated.image().topic("doomed").is_none());
    cluster.assert_same();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_can_be_changed() {
    let mut cluster = Cluster::formed(&[1, 2, 3]).await;
    cluster.start(4).await;
    let leader = cluster.leader().await;
    until("it is a learner", || cluster.running[&leader].status().observers.len() == 1).await;
    cluster.running[&leader].add_voter(BrokerId::new(4)).await.unwrap();
    until("it is a voter", || cluster.running[&leader].status().voters.len() == 4).await;
    let other = *cluster.voters.iter().find(|id| **id != leader).unwrap();
    cluster.running[&leader].remove_voter(BrokerId::new(other)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = cluster.running[&cluster.leader().await].status();
    assert_eq!((status.voters.len(), status.observers.len()), (3, 1), "it stays a learner");
    cluster.insist("a").await;
    cluster.everywhere("a").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_one_controller_grows() {
    let mut cluster = Cluster::formed(&[1]).await;
    cluster.insist("a").await;
    cluster.start(2).await;
    cluster.everywhere("a").await;
    cluster.kill(1).await;
    cluster.start(1).await;
    cluster.insist("b").await;
    cluster.everywhere("b").await;
    cluster.stop().await;
}

/// Kills, cuts and wipes nothing that a majority holds; whatever was answered as committed stays.
async fn storm(seed: u64) {
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::new(&[1, 2, 3]);
    cluster.policy = SnapshotPolicy { records_min: 30 };
    for id in [1, 2, 3] {
        cluster.start(id).await;
    }
    cluster.leader().await;
    let mut committed = Vec::new();
    for step in 0..12 {
        let victim = random.random_range(1..=3);
        match random.random_range(0..4) {
            0 => {
                cluster.kill(victim).await;
                if random.random_bool(0.5) {
                    cluster.disks[&victim].0.crash();
                }
                tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
                cluster.start(victim).await;
            }
            1 => cluster.isolate(victim),
            2 => cluster.running[&victim].peer_lost(BrokerId::new(random.random_range(1..=3))),
            _ => cluster.cut(victim, victim % 3 + 1),
        }
        for index in 0..15 {
            let name = format!("t{step}-{index}");
            for node in cluster.running.values() {
                if node.change(|_| topic(&name)).await.is_ok() {
                    committed.push(name);
                    break;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
        cluster.heal();
    }
    cluster.insist("end").await;
    cluster.everywhere("end").await;
    for name in &committed {
        for (id, node) in &cluster.running {
            assert!(node.image().topic(name).is_some(), "seed {seed}: {name} is lost on {id}");
        }
    }
    cluster.assert_same();
    println!("seed {seed}: {} committed", committed.len());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_survives_storms() {
    for seed in 0..3 {
        storm(seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_is_not_listened_to() {
    let mut cluster = Cluster::formed(&[1]).await;
    let node = Arc::clone(&cluster.running[&1]);
    let hello = |cluster_id: &str| {
        let envelope = Envelope {
            cluster: "eu".to_owned(),
            cluster_id: cluster_id.to_owned(),
            from: 2,
            sender: Member { address: "node2:1".to_owned(), directory: Uuid::from_u128(2) },
            to: 1,
            directory: None,
        };
        message::encode(&envelope, &Request::Hello).unwrap()
    };
    let ask = async |cluster_id: &str| message::decode_reply(&node.handle(hello(cluster_id)).await.unwrap());
    assert!(matches!(ask("a").await.unwrap(), Reply::Hello(_)), "it does not know its own id yet");
    let record = || MetadataRecord::Cluster { cluster_id: "a".to_owned() };
    node.change(|_| Decision { records: vec![record()], answer: () }).await.unwrap();
    assert!(matches!(ask("a").await.unwrap(), Reply::Hello(_)));
    assert!(matches!(ask("").await.unwrap(), Reply::Hello(_)), "the sender does not know");
    let refused = ask("b").await.unwrap();
    assert!(matches!(&refused, Reply::Refused(reason) if reason.contains("id a, not b")), "{refused:?}");
    cluster.net.nodes.lock().clear();
    drop(cluster.running.remove(&1));
    node.shutdown().await;
}
