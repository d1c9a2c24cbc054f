//! Brokers that come back without what they had, and incarnations that are taken for others.

use towpath_types::BrokerId;
use uuid::Uuid;

use super::support::*;
use super::*;
use crate::MetadataImage;

/// Registers a new incarnation with this data directory, after an unclean stop.
fn register_with(image: &mut MetadataImage, id: i32, directory: Option<u128>) {
    let mut asked = registration(id, towpath_types::BrokerEpoch::new(-1));
    asked.broker.directory = directory.map(Uuid::from_u128);
    let decision = register_broker(image, &policy(), &asked, false).unwrap();
    assert_eq!(commit(image, decision), epoch(image, id));
}

/// Three replicas that all stopped uncleanly; the last leader was 3.
fn without_leader(directory: Option<u128>) -> MetadataImage {
    let (mut image, policy) = (image(0), policy());
    for id in 1..=3 {
        register_with(&mut image, id, directory);
        unfence(&mut image, &policy, id);
    }
    assigned(&mut image, "t", &[1, 2, 3], &[]);
    fence(&mut image, &policy, 1);
    fence(&mut image, &policy, 2);
    assert_eq!(partition(&image, "t").leader, Some(BrokerId::new(3)));
    image
}

#[test]
fn an_empty_disk_is_not_the_last_known_leader() {
    for (before, now, leads) in
        [(Some(7), Some(7), true), (Some(7), Some(8), false), (None, Some(8), true), (Some(7), None, true)]
    {
        for fenced_before in [true, false] {
            let (mut image, policy) = (without_leader(before), policy());
            if fenced_before {
                fence(&mut image, &policy, 3);
            }
            register_with(&mut image, 3, now);
            let state = partition(&image, "t").clone();
            assert!(state.isr.is_empty() && state.elr.is_empty() && state.leader.is_none());
            assert_eq!(state.last_known_elr, if leads { ids(&[3]) } else { Vec::new() });
            unfence(&mut image, &policy, 3);
            unfence(&mut image, &policy, 1);
            let leader = partition(&image, "t").leader;
            assert_eq!(leader, leads.then(|| BrokerId::new(3)), "{before:?} {now:?} {fenced_before}");
            if leads {
                continue;
            }
            // By hand, whoever an operator takes for the best: here the first that is there.
            let asked = [PartitionRef { topic: "t".to_owned(), partition: 0 }];
            let decision = elect_leaders(&image, &policy, ElectionKind::Unclean, Some(&asked));
            commit(&mut image, decision);
            assert_eq!(partition(&image, "t").leader, Some(BrokerId::new(1)));
            assert!(partition(&image, "t").recovering);
        }
    }
}

#[test]
fn without_eligible_leader_replicas_an_empty_disk_leads_nothing_either() {
    let lax = ClusterPolicy { elr_enabled: false, ..policy() };
    let mut image = without_leader(Some(7));
    fence(&mut image, &lax, 3);
    assert_eq!(partition(&image, "t").isr, ids(&[3]));
    let mut asked = registration(3, epoch(&image, 3));
    asked.broker.directory = Some(Uuid::from_u128(8));
    let decision = register_broker(&image, &lax, &asked, false).unwrap();
    commit(&mut image, decision);
    unfence(&mut image, &lax, 3);
    assert_eq!(partition(&image, "t").leader, None);
}

#[test]
fn a_broker_that_was_unregistered_is_not_the_last_known_leader() {
    let (mut image, policy) = (without_leader(Some(7)), policy());
    fence(&mut image, &policy, 3);
    register_with(&mut image, 3, Some(7));
    assert_eq!(partition(&image, "t").last_known_elr, ids(&[3]));
    let decision = unregister_broker(&image, &policy, BrokerId::new(3)).unwrap();
    commit(&mut image, decision);
    register_with(&mut image, 3, Some(8));
    unfence(&mut image, &policy, 3);
    assert_eq!(partition(&image, "t").leader, None);
}

#[test]
fn only_the_incarnation_that_is_gone_is_fenced() {
    let (mut image, policy) = (without_leader(None), policy());
    let old = epoch(&image, 3);
    register_with(&mut image, 3, None);
    unfence(&mut image, &policy, 3);
    let decision = fence_incarnation(&image, &policy, BrokerId::new(3), old);
    assert!(decision.records.is_empty());
    let decision = fence_incarnation(&image, &policy, BrokerId::new(3), epoch(&image, 3));
    commit(&mut image, decision);
    assert!(image.broker(BrokerId::new(3)).unwrap().fenced);
}
