//! The rules of replication (1 to 14) and of transactions (15 to 21), each of which can be switched off.
//!
//! Production always holds all of them ([`Rules::ALL`]). A simulation runs a cluster without one and shows that its
//! checker sees what then breaks: a rule whose absence nobody notices is not tested.

use std::fmt;

/// One rule, by its number: up to 14 those of replication, from there on those of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Rule {
    /// Rule 1: The leader epoch grows at every change of the leader and when a replica leaves the assignment;
    /// the partition epoch at every change; what is older is not listened to (KIP-101, KIP-497). Without it a
    /// deposed leader goes on to serve, and two logs have different records at the same offset and epoch.
    Epochs = 1,
    /// Rule 2: A new leader notes its epoch's start before it takes a record, and forgets what followers
    /// fetched from the leader before; its high watermark does not go back. Without it followers that hold
    /// another history count as caught up, and readers see records that are replaced.
    BecomeLeader = 2,
    /// Rule 3: A leader takes a follower's fetch only from the assignment, in its own leader epoch, and from
    /// the broker's newest incarnation (KIP-320, KIP-903). Without it the fetch of a process that died raises
    /// the high watermark over what its successor does not hold.
    FollowerFetchChecks = 3,
    /// Rule 4: A leader compares the epoch of a follower's last record with its own history before it gives it
    /// data (KIP-595). Without it a follower with a diverging tail appends to it, and the replicas differ for
    /// ever.
    Divergence = 4,
    /// Rule 5: A follower truncates exactly to where its history and the leader's part, and drops answers to
    /// fetches that it would not make any more (KIP-279). Without it acknowledged records are cut off, or wrong
    /// ones stay.
    FollowerTruncation = 5,
    /// Rule 6: A follower out of the leader's range goes to the leader's end or start, whichever it missed.
    /// Without it a follower stays out of sync for ever, or leaves a hole in its log.
    OutOfRange = 6,
    /// Rule 7: The high watermark is what the maximal ISR holds, and advances only while as many are in sync as
    /// the topic asks for (KIP-966). Without it records are acknowledged that a leader elected next does not
    /// have.
    HighWatermark = 7,
    /// Rule 8: A follower enters the ISR only with all below the high watermark and from the leader epoch's
    /// start on, and is out of it when it falls behind (KIP-497, KIP-841). Without it a replica that lacks
    /// acknowledged records may be elected.
    IsrExpansion = 8,
    /// Rule 9: The controller takes a new ISR only from the leader of this very state, and no member that is
    /// fenced, shutting down, or of another incarnation (KIP-497, KIP-841, KIP-903). Without it a stale leader
    /// undoes an election, or a broker that restarted with an empty disk counts as in sync.
    AlterPartitionChecks = 9,
    /// Rule 10: A broker that is fenced leaves every ISR and leads nothing; its successor comes from the ISR,
    /// then from the ELR (KIP-841). Without it partitions keep a leader that is gone, or get one that lacks
    /// records.
    Fencing = 10,
    /// Rule 11: While fewer are in sync than the topic asks for, those that left stay eligible, unless they
    /// stopped uncleanly (KIP-966). Without it the last replica standing, which lost its unflushed tail in a
    /// crash, is elected and acknowledged records are gone.
    EligibleLeaderReplicas = 11,
    /// Rule 12: A broker's new incarnation is refused while the old one's session lives, and serves only once
    /// it knows of its own registration; a broker that stops first hands over what it leads (KIP-631). Without
    /// it two processes are the same broker, or one leads by metadata of another time.
    Registration = 12,
    /// Rule 13: A reassignment keeps the old replicas until all new ones are in sync, and drops them in the
    /// same record (KIP-455). Without it the only replicas with the data are removed before there are others.
    Reassignment = 13,
    /// Rule 14: Metadata are applied once a quorum has committed them; a deposed controller commits nothing.
    /// Without it two controllers elect two leaders.
    Controller = 14,
    /// Rule 15: Before a record begins a transaction in a partition, the coordinator is asked whether the transaction is
    /// open (KIP-890). Without it a record that comes late opens a transaction that nobody ends, or becomes part of
    /// the next one.
    Verification = 15,
    /// Rule 16: What the coordinator affirmed counts only as long as no marker and no newer epoch of the producer came to
    /// the partition in between (KIP-890). Without it a record is appended after the end of its transaction.
    VerificationGuard = 16,
    /// Rule 17: A transaction is decided for readers once its marker is below the high watermark, not as soon as it is in the
    /// log. Without it `read_committed` readers see what a marker says that is lost with its leader.
    LastStableOffset = 17,
    /// Rule 18: A coordinator serves, and sends markers, once all that it has read is committed. Without it it acts by a
    /// decision that is lost with its leader.
    CoordinatorLoad = 18,
    /// Rule 19: A marker of an older coordinator than the one that last ended a transaction of the producer in the partition
    /// is refused (R6). Without it a deposed coordinator ends a transaction of its successor.
    MarkerCoordinator = 19,
    /// Rule 20: A marker of an older epoch of the producer is refused, and so is one of the same epoch where every
    /// transaction has its own (KIP-890). Without it a marker that comes late ends the next transaction.
    MarkerEpoch = 20,
    /// Rule 21: What a coordinator decided is written in the term in which it was loaded, or not at all (R6). Without it
    /// a coordinator that was deposed and elected again undoes what others decided meanwhile.
    CoordinatorTerm = 21,
}

impl Rule {
    /// All rules by number.
    pub const ALL: [Self; 21] = [
        Self::Epochs,
        Self::BecomeLeader,
        Self::FollowerFetchChecks,
        Self::Divergence,
        Self::FollowerTruncation,
        Self::OutOfRange,
        Self::HighWatermark,
        Self::IsrExpansion,
        Self::AlterPartitionChecks,
        Self::Fencing,
        Self::EligibleLeaderReplicas,
        Self::Registration,
        Self::Reassignment,
        Self::Controller,
        Self::Verification,
        Self::VerificationGuard,
        Self::LastStableOffset,
        Self::CoordinatorLoad,
        Self::MarkerCoordinator,
        Self::MarkerEpoch,
        Self::CoordinatorTerm,
    ];

    /// Whether it is about transactions.
    #[must_use]
    pub const fn is_transactional(self) -> bool {
        self.number() > Self::Controller.number()
    }

    /// The rule's number, from 1 on.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// The rules that hold; every one of them, but in a simulation that breaks one on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rules(u32);

impl Rules {
    /// All of them.
    pub const ALL: Self = Self(((1 << Rule::ALL.len()) - 1) << 1);

    /// These rules but one.
    #[must_use]
    pub const fn without(self, rule: Rule) -> Self {
        Self(self.0 & !(1 << rule.number()))
    }

    /// Whether a rule holds.
    #[must_use]
    pub const fn holds(self, rule: Rule) -> bool {
        self.0 & (1 << rule.number()) != 0
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::ALL
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return f.write_str("Rules::ALL");
        }
        let broken = Rule::ALL.into_iter().filter(|rule| !self.holds(*rule));
        f.write_str("Rules without ")?;
        f.debug_list().entries(broken).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_switched_off_alone() {
        for (number, rule) in (1..).zip(Rule::ALL) {
            assert_eq!(rule.number(), number);
            assert!(Rules::ALL.holds(rule));
            let without = Rules::default().without(rule);
            assert_ne!(without, Rules::ALL);
            assert_eq!(without.without(rule), without);
            assert!(Rule::ALL.into_iter().all(|other| without.holds(other) == (other != rule)));
        }
        assert_eq!(format!("{:?}", Rules::ALL.without(Rule::Fencing)), "Rules without [Fencing]");
    }
}
