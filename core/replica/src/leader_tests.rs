use super::*;
use crate::BrokerView;
use towpath_types::Rules;

const LAG_MS: i64 = 1_000;

fn at(offset: i64) -> Offset {
    Offset::new(offset)
}

fn id(id: i32) -> BrokerId {
    BrokerId::new(id)
}

fn ids(all: &[i32]) -> Vec<BrokerId> {
    all.iter().map(|id| BrokerId::new(*id)).collect()
}

/// The state `epoch` of a partition that broker 1 leads.
fn leadership(epoch: i32, replicas: &[i32], isr: &[i32]) -> Leadership {
    Leadership {
        leader: Some(id(1)),
        leader_epoch: LeaderEpoch::new(epoch),
        partition_epoch: PartitionEpoch::new(epoch),
        replicas: ids(replicas),
        isr: ids(isr),
        recovering: false,
        adding: Vec::new(),
    }
}

/// The same term, a later state.
fn next_state(of: &Leadership, isr: &[i32]) -> Leadership {
    let partition_epoch = PartitionEpoch::new(of.partition_epoch.get() + 1);
    Leadership { partition_epoch, isr: ids(isr), ..of.clone() }
}

/// Brokers 1 to 5, each in its incarnation 100 and up, all of them eligible but those in `fenced`.
fn brokers_without(fenced: &[i32]) -> Brokers {
    Brokers::new((1..=5).map(|broker| {
        let is_eligible = !fenced.contains(&broker);
        (id(broker), BrokerView { epoch: BrokerEpoch::new(i64::from(100 + broker)), is_eligible })
    }))
}

fn brokers() -> Brokers {
    brokers_without(&[])
}

fn fetch(broker: i32, log_end: i64) -> FollowerFetch {
    FollowerFetch {
        broker: id(broker),
        broker_epoch: BrokerEpoch::new(i64::from(100 + broker)),
        log_end: at(log_end),
        log_start: at(0),
    }
}

fn without(rule: Rule) -> Rules {
    Rules::ALL.without(rule)
}

/// A leader whose log ends at `end`, durable, and is committed up to `committed`.
fn leader(rules: Rules, leadership: Leadership, end: i64, committed: i64) -> LeaderState {
    let setup = LeaderSetup { me: id(1), lag_ms_max: LAG_MS, rules };
    LeaderState::new(setup, leadership, at(end), at(end), at(committed), 0)
}

fn isr_of(proposal: &IsrProposal) -> Vec<i32> {
    let mut isr: Vec<i32> = proposal.isr.iter().map(|(id, _)| id.get()).collect();
    isr.sort_unstable();
    isr
}

mod alone {
    use super::*;

    fn alone(replicas: &[i32]) -> LeaderState {
        leader(Rules::ALL, leadership(0, replicas, &[1]), 0, 0)
    }

    #[test]
    fn an_append_is_committed_at_once_where_the_page_cache_will_do() {
        let mut state = alone(&[1]);
        let brokers = brokers();
        assert_eq!(state.appended(at(5), 0, &brokers), Some(at(5)));
        assert_eq!(state.appended(at(3), 0, &brokers), None, "a slower thread's older news change nothing");
        assert_eq!(state.flushed(at(5), 0, &brokers), None);
        assert_eq!(state.high_watermark(), at(5));
    }

    #[test]
    fn an_append_counts_after_its_flush_where_that_is_asked_for() {
        let mut state = alone(&[1]);
        let brokers = brokers();
        assert_eq!(state.configure(1, true, 0, &brokers), None);
        assert_eq!(state.appended(at(5), 0, &brokers), None);
        assert_eq!(state.appended(at(9), 0, &brokers), None);
        assert_eq!(state.flushed(at(5), 0, &brokers), Some(at(5)), "R1: only what is durable counts");
        assert_eq!(
            state.flushed(at(12), 0, &brokers),
            Some(at(9)),
            "a flush does not reach past the log's end"
        );
        state.appended(at(20), 0, &brokers);
        assert_eq!(state.configure(1, false, 0, &brokers), Some(at(20)), "the setting takes effect at once");
        assert_eq!(state.configure(1, true, 0, &brokers), None);
        assert_eq!(state.high_watermark(), at(20), "the high watermark never goes back");
    }

    #[test]
    fn the_high_watermark_stands_still_below_min_isr() {
        let brokers = brokers();
        let mut state = alone(&[1, 2, 3]);
        state.configure(2, false, 0, &brokers);
        assert_eq!(state.appended(at(5), 0, &brokers), None);
        assert_eq!((state.in_sync(), state.min_isr_effective()), (1, 2));
        let mut alone = alone(&[1]);
        alone.configure(2, false, 0, &brokers);
        assert_eq!(alone.min_isr_effective(), 1, "no more than there are replicas");
        assert_eq!(alone.appended(at(5), 0, &brokers), Some(at(5)));
    }

    #[test]
    fn a_new_epoch_begins_at_the_logs_end_and_an_old_one_changes_nothing() {
        let brokers = brokers();
        let setup = LeaderSetup { me: id(1), lag_ms_max: LAG_MS, rules: Rules::ALL };
        let mut state = LeaderState::new(setup, leadership(3, &[1], &[1]), at(10), at(4), at(2), 0);
        assert_eq!(state.configure(1, true, 0, &brokers), Some(at(4)));
        assert!(!state.has_committed_its_start());
        state.flushed(at(10), 0, &brokers);
        assert!(state.has_committed_its_start());
        state.appended(at(12), 0, &brokers);
        assert!(state.lead(leadership(4, &[1], &[1]), 0));
        assert!(!state.has_committed_its_start());
        assert!(!state.lead(leadership(3, &[1], &[1]), 0), "R6");
        assert_eq!(state.leadership().leader_epoch, LeaderEpoch::new(4));
        assert!(!state.lead(leadership(4, &[1], &[1]), 0), "the same again is no new epoch");
    }
}

/// Rule 1.
mod epochs {
    use super::*;

    #[test]
    fn an_older_state_changes_nothing_whichever_epoch_is_older() {
        let current = next_state(&next_state(&leadership(4, &[1, 2], &[1, 2]), &[1]), &[1, 2]);
        let old_leader = Leadership { leader_epoch: LeaderEpoch::new(3), ..next_state(&current, &[1]) };
        let old_state = leadership(4, &[1, 2], &[1]);
        for old in [old_leader, old_state] {
            let mut state = leader(Rules::ALL, current.clone(), 10, 0);
            assert!(!state.lead(old.clone(), 0));
            assert_eq!(*state.leadership(), current);
            let mut gullible = leader(without(Rule::Epochs), current.clone(), 10, 0);
            gullible.lead(old.clone(), 0);
            assert_eq!(*gullible.leadership(), old, "without the rule the past comes back");
        }
    }
}

/// Rule 2.
mod becoming_leader {
    use super::*;

    /// What a follower fetched in an earlier term it may have cut off since.
    #[test]
    fn nobody_counts_as_having_anything_before_it_fetches_in_the_new_epoch() {
        for (rules, high_watermark) in [(Rules::ALL, 5), (without(Rule::BecomeLeader), 9)] {
            let mut state = leader(rules, leadership(4, &[1, 2, 3], &[1, 2, 3]), 5, 0);
            state.appended(at(9), 0, &brokers());
            state.fetched(&fetch(2, 5), 0, &brokers()).unwrap();
            state.fetched(&fetch(3, 9), 0, &brokers()).unwrap();
            assert_eq!(state.high_watermark(), at(5));
            assert!(state.lead(leadership(5, &[1, 2, 3], &[1, 2, 3]), 0));
            state.fetched(&fetch(2, 9), 0, &brokers()).unwrap();
            assert_eq!(
                state.high_watermark(),
                at(high_watermark),
                "{rules:?}: broker 3 has said nothing yet"
            );
        }
    }

    #[test]
    fn the_old_high_watermark_is_kept_and_members_are_given_their_time() {
        let mut state = leader(Rules::ALL, leadership(4, &[1, 2, 3], &[1, 2]), 5, 3);
        assert_eq!(state.high_watermark(), at(3), "not lowered");
        assert_eq!(state.advance(0, &brokers()), None, "broker 2 has not been heard yet");
        assert_eq!(state.propose(LAG_MS, &brokers()), None, "a member counts as caught up at first");
        let proposal = state.propose(LAG_MS + 1, &brokers()).unwrap();
        assert_eq!(isr_of(&proposal), [1], "and is out when it never came");
        assert!(
            leader(Rules::ALL, leadership(4, &[1], &[1]), 5, 9).high_watermark() == at(5),
            "nothing past the end"
        );
    }
}

/// Rule 3.
mod fetch_checks {
    use super::*;

    #[test]
    fn a_broker_outside_the_assignment_is_refused() {
        let mut state = leader(Rules::ALL, leadership(4, &[1, 2], &[1, 2]), 5, 0);
        assert_eq!(state.fetched(&fetch(3, 5), 0, &brokers()), Err(FollowerRefused::NoReplica(id(3))));
        assert_eq!(state.check_follower(&fetch(1, 5), &brokers()), Err(FollowerRefused::NoReplica(id(1))));
        let moved = Leadership { replicas: ids(&[1, 3]), ..next_state(state.leadership(), &[1]) };
        state.lead(moved, 0);
        assert_eq!(state.check_follower(&fetch(2, 5), &brokers()), Err(FollowerRefused::NoReplica(id(2))));
        assert_eq!(state.check_follower(&fetch(3, 5), &brokers()), Ok(()));
    }

    /// KAFKA-15221: the fetch of a process that died is still on its way when its successor has registered.
    #[test]
    fn an_earlier_incarnation_is_refused() {
        let stale = FollowerFetch { broker_epoch: BrokerEpoch::new(101), ..fetch(2, 5) };
        let mut state = leader(Rules::ALL, leadership(4, &[1, 2], &[1, 2]), 5, 0);
        assert_eq!(state.fetched(&stale, 0, &brokers()), Err(FollowerRefused::StaleBrokerEpoch(id(2))));
        assert_eq!(state.high_watermark(), at(0));
        let mut gullible = leader(without(Rule::FollowerFetchChecks), leadership(4, &[1, 2], &[1, 2]), 5, 0);
        assert_eq!(
            gullible.fetched(&stale, 0, &brokers()),
            Ok(Some(at(5))),
            "over what the successor does not hold"
        );
        let newer = FollowerFetch { broker_epoch: BrokerEpoch::new(200), ..fetch(2, 5) };
        assert_eq!(
            state.fetched(&newer, 0, &brokers()),
            Ok(Some(at(5))),
            "one that is newer than the metadata may fetch"
        );
    }
}

/// Rule 7.
mod high_watermark {
    use super::*;

    #[test]
    fn it_is_what_all_in_sync_have() {
        let mut state = leader(Rules::ALL, leadership(4, &[1, 2, 3], &[1, 2, 3]), 10, 0);
        assert_eq!(state.fetched(&fetch(2, 10), 0, &brokers()), Ok(None), "broker 3 has not been heard");
        assert_eq!(state.fetched(&fetch(3, 4), 0, &brokers()), Ok(Some(at(4))));
        assert_eq!(state.fetched(&fetch(3, 7), 0, &brokers()), Ok(Some(at(7))));
        assert_eq!(
            state.fetched(&fetch(3, 2), 0, &brokers()),
            Ok(None),
            "monotone, whatever a follower says"
        );
        assert_eq!(state.high_watermark(), at(7));
        assert_eq!(state.follower_log_end(id(3)), Some(at(2)));
    }

    #[test]
    fn whoever_is_proposed_counts_while_it_is_pending() {
        let mut state = leader(Rules::ALL, leadership(4, &[1, 2], &[1]), 5, 5);
        state.fetched(&fetch(2, 5), 0, &brokers()).unwrap();
        let proposal = state.propose(0, &brokers()).unwrap();
        assert_eq!((isr_of(&proposal), state.maximal_isr()), (vec![1, 2], ids(&[1, 2])));
        // The lag is over, so that only the proposal makes it count.
        assert_eq!(
            state.appended(at(9), 10 * LAG_MS, &brokers_without(&[2])),
            None,
            "it may be the next leader"
        );
        assert_eq!(state.fetched(&fetch(2, 7), 10 * LAG_MS, &brokers()), Ok(Some(at(7))));
        state.answered(&proposal, ProposalAnswer::Refused);
        assert_eq!(state.advance(20 * LAG_MS, &brokers()), Some(at(9)), "it is not, after all");
    }

    #[test]
    fn a_member_that_is_being_removed_counts_until_it_is() {
        let before = leadership(4, &[1, 2], &[1, 2]);
        let mut state = leader(Rules::ALL, before.clone(), 5, 0);
        let proposal = state.propose(LAG_MS + 1, &brokers()).unwrap();
        assert_eq!((isr_of(&proposal), state.maximal_isr()), (vec![1], ids(&[1, 2])));
        assert_eq!(state.advance(LAG_MS + 1, &brokers()), None);
        state.answered(&proposal, ProposalAnswer::Accepted);
        assert_eq!(state.advance(LAG_MS + 1, &brokers()), None, "committed is what the metadata say");
        state.lead(next_state(&before, &[1]), LAG_MS + 1);
        assert_eq!(state.advance(LAG_MS + 1, &brokers()), Some(at(5)));
    }

    #[test]
    fn those_about_to_be_in_sync_count_while_they_are_eligible() {
        let mut state = leader(Rules::ALL, leadership(4, &[1, 2], &[1]), 5, 5);
        state.fetched(&fetch(2, 5), 0, &brokers()).unwrap();
        assert_eq!(state.appended(at(9), 0, &brokers()), None, "caught up within the lag: it will join");
        let mut fenced = state.clone();
        assert_eq!(fenced.advance(0, &brokers_without(&[2])), Some(at(9)), "a fenced one will not");
        assert_eq!(state.advance(LAG_MS + 1, &brokers()), Some(at(9)), "nor one that fell behind");
    }

    #[test]
    fn without_the_rule_a_record_counts_that_a_successor_lacks() {
        let rules = without(Rule::HighWatermark);
        // Broker 2 is in sync and has not been heard: it may have nothing of this.
        let mut state = leader(rules, leadership(4, &[1, 2], &[1, 2]), 5, 0);
        assert_eq!(state.advance(0, &brokers()), Some(at(5)));
        let mut few = leader(rules, leadership(4, &[1, 2], &[1]), 5, 0);
        few.configure(2, false, 0, &brokers());
        assert_eq!(few.high_watermark(), at(5), "below min.insync.replicas");
        let mut pending = leader(rules, leadership(4, &[1, 2], &[1]), 5, 5);
        pending.fetched(&fetch(2, 5), 0, &brokers()).unwrap();
        pending.propose(0, &brokers()).unwrap();
        assert_eq!(
            pending.appended(at(9), 0, &brokers()),
            Some(at(9)),
            "over the head of the one that joins"
        );
    }

    #[test]
    fn flushed_records_count_where_both_sides_count_them() {
        let mut state = leader(Rules::ALL, leadership(4, &[1, 2], &[1, 2]), 0, 0);
        state.configure(1, true, 0, &brokers());
        state.appended(at(5), 0, &brokers());
        assert_eq!(
            state.fetched(&fetch(2, 5), 0, &brokers()),
            Ok(None),
            "the leader's own share is not durable"
        );
        assert_eq!(state.flushed(at(5), 0, &brokers()), Some(at(5)));
    }

    #[test]
    fn records_are_deleted_everywhere_when_all_in_sync_have_moved_their_start() {
        let mut state = leader(Rules::ALL, leadership(4, &[1, 2, 3], &[1, 2]), 9, 0);
        assert_eq!(state.low_watermark(at(4)), at(0), "broker 2 has not been heard");
        state.fetched(&FollowerFetch { log_start: at(3), ..fetch(2, 9) }, 0, &brokers()).unwrap();
        assert_eq!(state.low_watermark(at(4)), at(3), "broker 3 is not in sync and holds nobody up");
        state.fetched(&FollowerFetch { log_start: at(4), ..fetch(2, 9) }, 0, &brokers()).unwrap();
        assert_eq!(state.low_watermark(at(4)), at(4));
    }
}

/// Rule 8.
mod in_sync {
    use super::*;

    #[test]
    fn a_follower_joins_with_everything_committed_and_all_from_the_epochs_start() {
        // The leader's watermark lags behind what its predecessor had committed.
        let mut state = leader(Rules::ALL, leadership(4, &[1, 2, 3], &[1, 3]), 8, 3);
        for (end, joins) in [(2, false), (3, false), (7, false), (8, true)] {
            let mut state = state.clone();
            state.fetched(&fetch(2, end), 0, &brokers()).unwrap();
            assert_eq!(state.propose(0, &brokers()).is_some(), joins, "at {end}");
        }
        state.setup.rules = without(Rule::IsrExpansion);
        state.fetched(&fetch(2, 3), 0, &brokers()).unwrap();
        assert!(state.propose(0, &brokers()).is_some(), "it may lack 3 to 7, which may be committed");
    }

    #[test]
    fn a_follower_joins_in_service_only_and_as_the_incarnation_that_fetched() {
        let mut state = leader(Rules::ALL, leadership(4, &[1, 2], &[1]), 5, 5);
        assert_eq!(state.propose(0, &brokers()), None, "it has not fetched in this epoch");
        state.fetched(&fetch(2, 5), 0, &brokers()).unwrap();
        assert!(!state.has_proposal(0, &brokers_without(&[2])));
        let restarted = BrokerView { epoch: BrokerEpoch::new(300), is_eligible: true };
        assert!(!state.has_proposal(0, &Brokers::new([(id(2), restarted)])), "KIP-903");
        assert!(!state.has_proposal(0, &Brokers::default()), "nobody knows it");
        let mut gullible = state.clone();
        gullible.setup.rules = without(Rule::IsrExpansion);
        assert!(gullible.propose(0, &Brokers::new([(id(2), restarted)])).is_some());
        let proposal = state.propose(0, &brokers()).unwrap();
        assert_eq!(proposal.isr, [(id(1), BrokerEpoch::new(101)), (id(2), BrokerEpoch::new(102))]);
    }

    #[test]
    fn a_member_is_out_when_it_was_not_at_the_end_for_too_long() {
        let mut state = leader(Rules::ALL, leadership(4, &[1, 2], &[1, 2]), 5, 0);
        state.fetched(&fetch(2, 5), 100, &brokers()).unwrap();
        state.appended(at(9), 200, &brokers());
        assert!(!state.has_proposal(100 + LAG_MS, &brokers()));
        // It fetches, always behind; at each fetch it has what was there at the one before.
        let mut busy = state.clone();
        for round in 1..20 {
            let now = 200 + round * LAG_MS / 2;
            busy.fetched(&fetch(2, 5 + 4 * round - 2), now, &brokers()).unwrap();
            busy.appended(at(9 + 4 * round), now, &brokers());
            assert!(!busy.has_proposal(now, &brokers()), "round {round}: it keeps pace");
        }
        // It fetches and does not come forward.
        for round in 1..4 {
            state.fetched(&fetch(2, 6), 200 + round * LAG_MS / 2, &brokers()).unwrap();
        }
        assert_eq!(isr_of(&state.propose(200 + 2 * LAG_MS, &brokers()).unwrap()), [1]);
    }

    #[test]
    fn a_silent_member_that_has_everything_stays() {
        let mut state = leader(Rules::ALL, leadership(4, &[1, 2], &[1, 2]), 5, 0);
        state.fetched(&fetch(2, 5), 0, &brokers()).unwrap();
        assert!(!state.has_proposal(100 * LAG_MS, &brokers()), "nothing was written that it lacks");
    }

    #[test]
    fn one_proposal_is_in_flight_and_is_sent_again_as_it_was() {
        let before = leadership(4, &[1, 2, 3], &[1]);
        let mut state = leader(Rules::ALL, before.clone(), 5, 5);
        state.fetched(&fetch(2, 5), 0, &brokers()).unwrap();
        let proposal = state.propose(0, &brokers()).unwrap();
        state.fetched(&fetch(3, 5), 0, &brokers()).unwrap();
        assert!(!state.has_proposal(0, &brokers()));
        assert_eq!(state.propose(0, &brokers()), None, "broker 3 waits its turn");
        state.answered(&proposal, ProposalAnswer::Retry);
        assert!(state.has_proposal(0, &brokers()));
        assert_eq!(state.propose(0, &brokers()), Some(proposal.clone()));
        assert_eq!(state.propose(0, &brokers()), None);
        state.answered(&proposal, ProposalAnswer::Accepted);
        assert_eq!(state.propose(0, &brokers()), None, "until the metadata arrive");
        state.lead(next_state(&before, &[1, 2]), 0);
        let next = state.propose(0, &brokers()).unwrap();
        assert_eq!((isr_of(&next), next.partition_epoch), (vec![1, 2, 3], PartitionEpoch::new(5)));
    }

    /// KAFKA-15353: the set is made anew from the state as it is.
    #[test]
    fn a_proposal_is_never_empty_and_begins_from_the_newest_state() {
        let mut state = leader(Rules::ALL, leadership(4, &[1, 2, 3], &[1, 2, 3]), 5, 0);
        let both = state.propose(LAG_MS + 1, &brokers()).unwrap();
        assert_eq!(isr_of(&both), [1]);
        state.lead(next_state(state.leadership(), &[1, 2]), LAG_MS + 1);
        let rest = state.propose(LAG_MS + 1, &brokers()).unwrap();
        assert_eq!((isr_of(&rest), rest.partition_epoch), (vec![1], PartitionEpoch::new(5)));
    }

    #[test]
    fn a_leader_that_may_lack_records_says_when_it_is_done_with_that() {
        let recovering = Leadership { recovering: true, ..leadership(4, &[1, 2], &[1]) };
        let mut state = leader(Rules::ALL, recovering, 5, 0);
        assert!(state.has_proposal(0, &brokers()));
        let proposal = state.propose(0, &brokers()).unwrap();
        assert_eq!(isr_of(&proposal), [1]);
        state.answered(&proposal, ProposalAnswer::Accepted);
        state.lead(next_state(&leadership(4, &[1, 2], &[1]), &[1]), 0);
        assert!(!state.has_proposal(0, &brokers()));
    }
}

/// Rule 9.
mod answers {
    use super::*;

    fn with_pending(rules: Rules) -> (LeaderState, IsrProposal) {
        let mut state = leader(rules, leadership(4, &[1, 2], &[1]), 5, 5);
        state.fetched(&fetch(2, 5), 0, &brokers()).unwrap();
        let proposal = state.propose(0, &brokers()).unwrap();
        (state, proposal)
    }

    #[test]
    fn only_a_refusal_goes_back_to_the_committed_set() {
        for (answer, maximal) in [
            (ProposalAnswer::Refused, ids(&[1])),
            (ProposalAnswer::Unknown, ids(&[1, 2])),
            (ProposalAnswer::Accepted, ids(&[1, 2])),
            (ProposalAnswer::Retry, ids(&[1, 2])),
        ] {
            let (mut state, proposal) = with_pending(Rules::ALL);
            state.answered(&proposal, answer);
            assert_eq!(state.maximal_isr(), maximal, "{answer:?}");
        }
        let (mut state, proposal) = with_pending(without(Rule::AlterPartitionChecks));
        state.answered(&proposal, ProposalAnswer::Unknown);
        assert_eq!(
            state.maximal_isr(),
            ids(&[1]),
            "without the rule a set is forgotten that may be in force"
        );
    }

    #[test]
    fn an_answer_to_something_older_changes_nothing() {
        let (mut state, old) = with_pending(Rules::ALL);
        state.lead(next_state(state.leadership(), &[1]), 0);
        let new = state.propose(0, &brokers()).unwrap();
        assert_ne!(old, new);
        let before = state.clone();
        for answer in [ProposalAnswer::Refused, ProposalAnswer::Retry, ProposalAnswer::Unknown] {
            state.answered(&old, answer);
            assert_eq!(state, before, "{answer:?}");
        }
    }

    #[test]
    fn the_same_state_again_leaves_the_proposal_pending() {
        let (mut state, _) = with_pending(Rules::ALL);
        state.lead(state.leadership().clone(), 0);
        assert_eq!(state.maximal_isr(), ids(&[1, 2]), "the answer has raced the metadata");
        state.lead(next_state(state.leadership(), &[1, 2]), 0);
        assert_eq!((state.maximal_isr(), state.in_sync()), (ids(&[1, 2]), 2));
    }
}

/// Sequences of events from seeds.
mod random {
    use super::*;
    use crate::testing::Random;

    /// The cluster around the leader: what each follower's log truly holds, and what is on its way.
    struct Model {
        random: Random,
        state: LeaderState,
        end: i64,
        ends: BTreeMap<i32, i64>,
        now: i64,
        fenced: Vec<i32>,
        in_flight: Option<IsrProposal>,
        old: Vec<IsrProposal>,
        high_watermark: Offset,
    }

    impl Model {
        fn new(seed: u64) -> Self {
            let mut random = Random::new(seed);
            let isr: &[i32] = if random.below(2) == 0 { &[1, 2, 3, 4] } else { &[1, 3] };
            let end = i64::from(random.below(10));
            let committed = i64::from(random.below(10)).min(end);
            let mut state = leader(Rules::ALL, leadership(1, &[1, 2, 3, 4], isr), end, committed);
            state.configure(random.below(3) as usize + 1, random.below(2) == 0, 0, &brokers());
            // Every member of the ISR has what is committed.
            let ends = (2..=4).map(|id| (id, if isr.contains(&id) { committed } else { 0 })).collect();
            let high_watermark = state.high_watermark();
            Self {
                random,
                state,
                end,
                ends,
                now: 0,
                fenced: Vec::new(),
                in_flight: None,
                old: Vec::new(),
                high_watermark,
            }
        }

        fn brokers(&self) -> Brokers {
            brokers_without(&self.fenced)
        }

        fn step(&mut self) {
            let brokers = self.brokers();
            let now = self.now;
            match self.random.below(10) {
                0 | 1 => {
                    self.end += i64::from(self.random.below(4));
                    self.state.appended(at(self.end), now, &brokers);
                }
                2 => drop(self.state.flushed(
                    at(i64::from(self.random.below(self.end as u32 + 2))),
                    now,
                    &brokers,
                )),
                3..=5 => {
                    let follower = self.random.below(3) as i32 + 2;
                    // It tells where its log ends before it gets more.
                    let end = self.ends[&follower];
                    self.state.fetched(&fetch(follower, end), now, &brokers).unwrap();
                    let more = i64::from(self.random.below((self.end - end) as u32 + 1));
                    self.ends.insert(follower, end + more);
                }
                6 => self.now += i64::from(self.random.below(LAG_MS as u32 * 2)),
                7 => {
                    let broker = self.random.below(3) as i32 + 2;
                    if self.fenced.contains(&broker) {
                        self.fenced.retain(|other| *other != broker);
                    } else {
                        self.fenced.push(broker);
                        // Rule 10: it leaves the ISR at once.
                        let isr: Vec<i32> = self
                            .state
                            .leadership()
                            .isr
                            .iter()
                            .map(|id| id.get())
                            .filter(|id| *id != broker)
                            .collect();
                        self.commit(&isr);
                    }
                }
                8 => self.propose(),
                _ => self.answer(),
            }
            self.check();
        }

        fn commit(&mut self, isr: &[i32]) {
            let next = next_state(self.state.leadership(), isr);
            self.state.lead(next, self.now);
            self.old.extend(self.in_flight.take());
            let brokers = self.brokers();
            self.state.advance(self.now, &brokers);
        }

        fn propose(&mut self) {
            let brokers = self.brokers();
            let had = self.state.has_proposal(self.now, &brokers);
            let proposal = self.state.propose(self.now, &brokers);
            assert_eq!(had, proposal.is_some());
            if let Some(proposal) = proposal {
                assert_eq!(self.in_flight, None, "one at a time");
                assert!(proposal.isr.iter().any(|(broker, _)| *broker == id(1)), "the leader is in it");
                for (broker, _) in proposal.isr.iter().filter(|(broker, _)| *broker != id(1)) {
                    let end = at(self.ends[&broker.get()]);
                    assert!(
                        end >= self.state.high_watermark() || self.state.leadership().isr.contains(broker),
                        "{broker} lacks committed records"
                    );
                }
                self.in_flight = Some(proposal);
            }
        }

        fn answer(&mut self) {
            if !self.old.is_empty() && self.random.below(2) == 0 {
                let old = self.old[self.random.below(self.old.len() as u32) as usize].clone();
                let before = self.state.clone();
                self.state.answered(&old, ProposalAnswer::Refused);
                self.state.answered(&old, ProposalAnswer::Retry);
                assert_eq!(self.state, before, "an old answer changes nothing");
                return;
            }
            let Some(proposal) = self.in_flight.clone() else { return };
            match self.random.below(4) {
                0 => {
                    self.state.answered(&proposal, ProposalAnswer::Refused);
                    // From the same state the same may be proposed again.
                    self.in_flight = None;
                }
                1 => {
                    self.state.answered(&proposal, ProposalAnswer::Retry);
                    self.in_flight = None;
                }
                2 => self.state.answered(&proposal, ProposalAnswer::Unknown),
                _ => {
                    self.state.answered(&proposal, ProposalAnswer::Accepted);
                    self.commit(&isr_of(&proposal));
                }
            }
        }

        fn check(&mut self) {
            let now = self.state.high_watermark();
            assert!(now >= self.high_watermark, "monotone");
            if now > self.high_watermark {
                assert!(self.state.in_sync() >= self.state.min_isr_effective());
                for member in self.state.maximal_isr().iter().filter(|member| **member != id(1)) {
                    let end = self.ends[&member.get()];
                    assert!(end >= now.get(), "{member} has {end} of {now}");
                }
                assert!(now.get() <= self.end);
            }
            self.high_watermark = now;
        }
    }

    #[test]
    fn the_high_watermark_is_monotone_and_held_by_all_of_the_maximal_isr() {
        for seed in 0..2_000 {
            let mut model = Model::new(seed);
            for _ in 0..200 {
                model.step();
            }
        }
    }
}
