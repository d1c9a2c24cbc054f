//! Workloads W1 to W9, as ratios against a peer in the same run.
