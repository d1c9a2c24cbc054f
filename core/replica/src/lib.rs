//! Leader and follower roles of a partition: high watermark, ISR, durability.
