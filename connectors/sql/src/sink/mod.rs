//! What SQL sinks share, whatever their dialect: which table a record belongs to, which columns it fills, and how the
//! changes of a batch are folded into few statements that leave the same rows behind.

mod layout;
mod steps;
mod target;

pub use layout::{Extra, Layout, LayoutColumn, LayoutError, LayoutOptions, Origin};
pub use steps::{Change, Fold, Refusal, Step, TableSteps, Upsert, plan_steps};
pub use target::{TargetError, TargetTemplate};
