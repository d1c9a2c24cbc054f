//! What SQL sinks share, whatever their dialect: which table a record belongs to, which columns it fills, and how the
//! changes of a batch are folded into few statements that leave the same rows behind, and how positions move with them.

mod columns;
mod layout;
mod steps;
mod target;
mod task;

pub use columns::{
    COLUMNS_TABLE, ColumnChange, Columns, ColumnsError, Filling, Known, Reconciled, reconcile,
};
pub use layout::{Extra, Layout, LayoutColumn, LayoutError, LayoutOptions, Origin};
pub use steps::{Change, Fold, Refusal, Step, TableSteps, Upsert, plan_steps};
pub use target::{TargetError, TargetTemplate};
pub use task::{
    Fault, OFFSETS_TABLE, Owned, Plan, Planned, RecordRefusal, SqlTask, Target, Work, fenced, topic_key,
};
