//! Each of the rules, switched off alone, is missed: some invariant does not hold any more. And with the rule in
//! force the very same runs hold, so it is the rule that they are about.
#![allow(clippy::print_stdout, reason = "how soon each rule is missed is the test's report")]

use towpath_simulation::{INTERNAL, LIVENESS, Run, Script};
use towpath_types::Rule;

/// Seeds that may pass before a rule is missed.
const SEEDS_MAX: u64 = 300;

/// What shows a rule best: a scenario, or the seeds of a profile that is bent towards it (see `Profile::focused`).
fn scenario(rule: Rule) -> Option<Script> {
    match rule {
        Rule::BecomeLeader => Some(Script::LeaderThatSleptThroughAnEpoch),
        Rule::FollowerFetchChecks => Some(Script::FetchOfADeadProcess),
        Rule::FollowerTruncation => Some(Script::FastLeaderChanges),
        Rule::OutOfRange => Some(Script::FollowerPastTheEnd),
        Rule::IsrExpansion => Some(Script::FollowerBehindTheEpochStart),
        Rule::CoordinatorLoad => Some(Script::DecisionThatIsLost),
        Rule::MarkerCoordinator => Some(Script::MarkerOfADeposedCoordinator),
        _ => None,
    }
}

/// Whether a rule's absence may show by a follower that never comes to rest: that is what the rule is for.
fn is_for_liveness(rule: Rule) -> bool {
    matches!(rule, Rule::FollowerTruncation | Rule::OutOfRange)
}

#[test]
fn every_broken_rule_is_caught() {
    for rule in Rule::ALL {
        let script = scenario(rule);
        let runs = (0..SEEDS_MAX).map(|seed| Run { script, without: Some(rule), ..Run::new(seed) });
        let caught = runs
            .filter_map(|run| run.run(None).violation.map(|violation| (run, violation)))
            .find(|(_, violation)| violation.invariant != LIVENESS || is_for_liveness(rule));
        let Some((run, violation)) = caught else {
            panic!("nobody misses rule {} ({rule:?}) in {SEEDS_MAX} seeds", rule.number());
        };
        println!("rule {} ({rule:?}) is missed by seed {}: {violation}", rule.number(), run.seed);
        assert_ne!(violation.invariant, INTERNAL, "rule {}: {violation}", rule.number());
        let control = Run { without: None, focus: Some(rule), ..run };
        if let Some(violation) = control.run(None).violation {
            panic!("with rule {} in force: {violation}\nrepeat: {}", rule.number(), control.command());
        }
    }
}
