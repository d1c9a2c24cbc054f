//! Scenarios that chance meets too rarely: each leads a cluster to the point where one rule, or the lack of it, decides.
//!
//! They are not recordings: what happens between two lines of a script is drawn from the seed as always, and all
//! invariants are checked after every step.

use crate::profile::{Profile, TopicProfile};
use crate::sim::Simulation;
use crate::violation::Checked;

/// A scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// A leader is deposed, its follower cuts off what only both of them had, and it is elected again without having
    /// heard of any of it (rule 2).
    LeaderThatSleptThroughAnEpoch,
    /// A fetch of a follower arrives after it lost its log in a crash and came back (KAFKA-15221, rule 3).
    FetchOfADeadProcess,
    /// Leaders change fast, each with a record of its own at the same offset (KIP-279, rule 5).
    FastLeaderChanges,
    /// A follower that began past the end of a leader which is then elected uncleanly (rule 6).
    FollowerPastTheEnd,
    /// A new leader that does not know how much is committed, and a follower that lacks some of it (rule 8).
    FollowerBehindTheEpochStart,
    /// DeleteRecords into the middle of a batch, and followers that have to begin there.
    DeletionWithinABatch,
    /// The last leader has gone while another one in sync was on its way out, and then that one goes, uncleanly
    /// (KAFKA-19522).
    LastOneInSyncIsOnItsWayOut,
    /// `min.insync.replicas` is raised, and the ISR shrinks before the leader hears of either.
    ShrinkWithARaisedMinimum,
    /// A transaction coordinator reads a decision that is not committed, and leads no more before it is; the next one has
    /// not heard of it (rule 18).
    DecisionThatIsLost,
    /// A transaction coordinator that does not know that it is deposed sends a marker again when the producer has begun
    /// its next transaction with the successor (rule 19).
    MarkerOfADeposedCoordinator,
}

impl Script {
    /// All scenarios.
    pub const ALL: [Self; 10] = [
        Self::LeaderThatSleptThroughAnEpoch,
        Self::FetchOfADeadProcess,
        Self::FastLeaderChanges,
        Self::FollowerPastTheEnd,
        Self::FollowerBehindTheEpochStart,
        Self::DeletionWithinABatch,
        Self::LastOneInSyncIsOnItsWayOut,
        Self::ShrinkWithARaisedMinimum,
        Self::DecisionThatIsLost,
        Self::MarkerOfADeposedCoordinator,
    ];

    /// The cluster that it plays in.
    #[must_use]
    pub fn profile(self) -> Profile {
        let topic = |factor, min_isr| TopicProfile { factor, min_isr, ..TopicProfile::single() };
        match self {
            Self::LeaderThatSleptThroughAnEpoch => Profile::calm(7, topic(3, 3), false),
            Self::FetchOfADeadProcess => Profile::calm(4, topic(3, 1), false),
            Self::FastLeaderChanges => Profile::calm(5, topic(2, 2), false),
            Self::FollowerPastTheEnd => Profile::calm(7, topic(2, 1), true),
            Self::FollowerBehindTheEpochStart => Profile::calm(4, topic(3, 2), false),
            Self::DeletionWithinABatch => Profile::calm(4, topic(3, 1), false),
            Self::LastOneInSyncIsOnItsWayOut => Profile::calm(7, topic(2, 1), false),
            Self::ShrinkWithARaisedMinimum => Profile::calm(4, topic(3, 2), false),
            Self::DecisionThatIsLost | Self::MarkerOfADeposedCoordinator => Profile::calm_with_transactions(),
        }
    }

    pub(crate) fn play(self, cluster: &mut Simulation) -> Checked {
        cluster.calm();
        cluster.run_until("all are in sync", Simulation::all_in_sync)?;
        // The controller is nobody who is in the play.
        cluster.move_controller_to(self.profile().nodes - 1);
        cluster
            .run_until("the first replica leads", |c| c.leader(0).is_some_and(|leader| c.leads(leader, 0)))?;
        cluster.run_until("something is committed", |c| c.committed_end(0) > 3)?;
        cluster.be_quiet(true);
        cluster.run_until("producers are at rest", Simulation::producers_rest)?;
        cluster.run_until("all have all", Simulation::is_still)?;
        cluster.run_for(100)?;
        match self {
            Self::LeaderThatSleptThroughAnEpoch => leader_that_slept(cluster),
            Self::FetchOfADeadProcess => fetch_of_a_dead_process(cluster),
            Self::FastLeaderChanges => fast_leader_changes(cluster),
            Self::FollowerPastTheEnd => follower_past_the_end(cluster),
            Self::FollowerBehindTheEpochStart => follower_behind_the_epoch_start(cluster),
            Self::DeletionWithinABatch => deletion_within_a_batch(cluster),
            Self::LastOneInSyncIsOnItsWayOut => last_one_on_its_way_out(cluster),
            Self::ShrinkWithARaisedMinimum => shrink_with_a_raised_minimum(cluster),
            Self::DecisionThatIsLost => decision_that_is_lost(cluster),
            Self::MarkerOfADeposedCoordinator => marker_of_a_deposed_coordinator(cluster),
        }
    }
}

/// The leader of the play, and the other nodes with a replica in the order of the assignment.
fn cast(cluster: &Simulation) -> (usize, Vec<usize>) {
    let leader = cluster.leader(0).unwrap_or_default();
    let replicas = cluster.replicas(0);
    let nodes = replicas.iter().filter_map(|replica| usize::try_from(replica.get() - 1).ok());
    (leader, nodes.filter(|node| *node != leader).collect())
}

fn leader_that_slept(c: &mut Simulation) -> Checked {
    let (sleeper, others) = cast(c);
    let (next, follower) = (others[0], others[1]);
    // Two records that only the sleeper and the follower have.
    let end = c.log_end(next, 0);
    c.cut_link(next, sleeper);
    c.append_at(sleeper, 0)?;
    c.append_at(sleeper, 0)?;
    c.run_until("the follower has them", |c| c.log_end(follower, 0) == end + 2)?;
    c.run_for(60)?;
    c.deafen(sleeper, true);
    c.cut_off(sleeper);
    c.run_until("another one leads", |c| c.leader(0) == Some(next))?;
    c.run_until("the follower has cut them off", |c| c.log_end(follower, 0) == end)?;
    // These are gone, too, and the sleeper is all there is: it did not stop uncleanly.
    c.cut_off(next);
    c.cut_off(follower);
    c.run_until("they are fenced", |c| c.is_fenced(next) && c.is_fenced(follower))?;
    c.reconnect(sleeper);
    c.run_until("the sleeper leads again", |c| c.leader(0) == Some(sleeper))?;
    c.deafen(sleeper, false);
    // The follower is back; it does not know yet whom to fetch from.
    c.deafen(follower, true);
    c.reconnect(follower);
    c.cut_link(follower, next);
    c.run_for(200)?;
    c.reconnect(next);
    c.cut_link(next, follower);
    c.run_for(300)
}

fn fetch_of_a_dead_process(c: &mut Simulation) -> Checked {
    let (leader, others) = cast(c);
    let (slow, victim) = (others[0], others[1]);
    let end = c.log_end(victim, 0);
    c.cut_link(leader, slow);
    for _ in 0..4 {
        c.append_at(leader, 0)?;
    }
    let held = c.hold_fetch(victim, 0, end + 4)?;
    c.crash_and_start(victim)?;
    // It gets what is committed, and no more.
    c.run_until("the victim has what is committed", |c| c.log_end(victim, 0) >= end)?;
    c.cut_link(leader, victim);
    c.run_until("the victim is in sync again", |c| c.in_sync(0).contains(&victim) && !c.is_fenced(victim))?;
    c.let_go(held)?;
    c.reconnect(slow);
    c.run_for(100)
}

fn fast_leader_changes(c: &mut Simulation) -> Checked {
    let (first, others) = cast(c);
    let second = others[0];
    c.cut_link(second, first);
    c.append_at(first, 0)?;
    c.cut_off(first);
    c.run_until("the second leads", |c| c.leader(0) == Some(second) && c.leads(second, 0))?;
    c.append_at(second, 0)?;
    c.append_at(second, 0)?;
    c.cut_off(second);
    c.run_until("the second is fenced", |c| c.is_fenced(second))?;
    c.reconnect(first);
    c.run_until("the first leads again", |c| c.leader(0) == Some(first) && c.leads(first, 0))?;
    c.append_at(first, 0)?;
    c.reconnect(second);
    c.run_for(300)
}

fn follower_past_the_end(c: &mut Simulation) -> Checked {
    let (leader, others) = cast(c);
    let (short, fresh) = (others[0], 2);
    c.kill_for_good(short)?;
    c.run_until("the short one is out", |c| c.in_sync(0) == [leader])?;
    let end = c.log_end(leader, 0);
    for _ in 0..4 {
        c.append_at(leader, 0)?;
    }
    c.run_until("more is committed", |c| c.committed_end(0) == end + 4)?;
    c.delete_to(leader, 0, None)?;
    c.reassign(0, &[leader, short, fresh])?;
    c.run_until("the fresh one is in sync", |c| c.in_sync(0).contains(&fresh))?;
    c.cut_off(leader);
    c.run_until("the leader is fenced", |c| c.is_fenced(leader))?;
    c.cut_off(fresh);
    c.run_until("the fresh one is fenced", |c| c.is_fenced(fresh))?;
    c.start(short)?;
    c.run_until("the short one leads", |c| c.leader(0) == Some(short) && c.leads(short, 0))?;
    c.reconnect(fresh);
    c.run_for(300)
}

fn follower_behind_the_epoch_start(c: &mut Simulation) -> Checked {
    let (leader, others) = cast(c);
    let (next, behind) = (others[0], others[1]);
    let end = c.log_end(behind, 0);
    c.cut_off(behind);
    c.run_until("one is out", |c| !c.in_sync(0).contains(&behind))?;
    for _ in 0..6 {
        c.append_at(leader, 0)?;
    }
    // The next leader has them, and does not hear that they are committed.
    c.run_until("the next one has them", |c| c.log_end(next, 0) == end + 6)?;
    c.cut_link(leader, next);
    c.run_until("they are committed", |c| c.committed_end(0) == end + 6)?;
    c.cut_off(leader);
    c.reconnect(behind);
    c.cut_link(leader, behind);
    c.run_until("the next one leads", |c| c.leader(0) == Some(next) && c.leads(next, 0))?;
    c.cut_link(next, behind);
    c.run_for(300)
}

fn deletion_within_a_batch(c: &mut Simulation) -> Checked {
    let (leader, others) = cast(c);
    let end = c.log_end(leader, 0);
    c.kill_for_good(others[0])?;
    c.be_quiet(false);
    c.run_until("there is more", |c| c.committed_end(0) > end + 12)?;
    c.be_quiet(true);
    c.run_for(50)?;
    for offset in end + 1..end + 6 {
        c.delete_to(leader, 0, Some(offset))?;
    }
    c.start(others[0])?;
    c.reassign(0, &[leader, others[0], others[1], 3])?;
    c.run_until("all are in sync", |c| c.in_sync(0).len() == 4)
}

fn last_one_on_its_way_out(c: &mut Simulation) -> Checked {
    let (leader, others) = cast(c);
    let leaving = others[0];
    // It cannot stop before others have heard of it.
    c.cut_off(2);
    c.stop_in_order(leaving);
    c.run_for(60)?;
    c.kill_for_good(leader)?;
    c.run_until("the leader is fenced", |c| c.is_fenced(leader))?;
    c.kill_for_good(leaving)?;
    c.run_until("the other is fenced", |c| c.is_fenced(leaving))?;
    c.start(leader)?;
    c.start(leaving)?;
    c.run_for(300)
}

fn shrink_with_a_raised_minimum(c: &mut Simulation) -> Checked {
    let (leader, others) = cast(c);
    c.deafen(leader, true);
    c.raise_minimum(0, 3)?;
    c.run_for(50)?;
    c.cut_link(others[1], leader);
    c.append_at(leader, 0)?;
    c.run_until("the ISR shrinks", |c| c.in_sync(0).len() == 2)?;
    c.deafen(leader, false);
    c.run_for(200)
}

fn decision_that_is_lost(c: &mut Simulation) -> Checked {
    let state = c.state_slot();
    c.be_quiet(false);
    c.run_until("a transaction is open", |c| c.has_open_transactions(&[0, 1]))?;
    let end = c.log_end(0, state);
    c.cut_link(0, 2);
    c.run_until("it is to be committed", |c| c.log_end(0, state) > end)?;
    // Nobody asks again: it will run out of time.
    c.send_producers_to_sleep(3_000);
    c.run_until("another node has read that", |c| c.log_end(1, state) > end)?;
    c.cut_off(0);
    c.cut_link(1, 2);
    c.cut_link(1, 4);
    c.run_until("that one coordinates", |c| c.leader(state) == Some(1) && c.leads(1, state))?;
    c.run_for(80)?;
    c.cut_off(1);
    c.run_until("the third coordinates", |c| c.leader(state) == Some(2) && c.leads(2, state))?;
    c.run_until("it has aborted what it knows", |c| {
        !c.has_open_transactions(&[0]) && !c.has_open_transactions(&[1])
    })?;
    c.reconnect(0);
    c.reconnect(1);
    c.run_for(300)
}

fn marker_of_a_deposed_coordinator(c: &mut Simulation) -> Checked {
    let state = c.state_slot();
    c.be_quiet(false);
    c.run_until("a transaction is open", |c| c.has_open_transactions(&[0]))?;
    c.cut_link(0, 3);
    c.run_until("its end is decided", |c| c.has_markers(0))?;
    c.cut_off(0);
    c.run_until("another one coordinates", |c| c.leader(state) == Some(1) && c.leads(1, state))?;
    c.run_until("the transaction is over", |c| !c.has_open_transactions(&[0]))?;
    c.run_until("the next one is open", |c| c.has_open_transactions(&[0]))?;
    c.send_producers_to_sleep(600);
    c.join(0, 3);
    c.run_for(400)?;
    c.reconnect(0);
    c.run_for(300)
}
