//! The trait of a transform, and the macro that exports it.

use crate::{Batch, Config, Descriptor, Error, Output, Problem};

/// What changes records on their way.
///
/// It may keep state (counts, caches), but no records: after a crash it is given them again, by a new instance.
pub trait Transform: Sized {
    /// Name, version and options. Must not depend on time or chance.
    fn descriptor() -> Descriptor;

    /// What is wrong with options that fit their types; all of it at once.
    fn check(config: &Config) -> Vec<Problem> {
        let _ = config;
        Vec::new()
    }

    /// A new instance.
    ///
    /// # Errors
    /// What keeps it from working.
    fn open(config: &Config) -> Result<Self, Error>;

    /// Transforms one batch, which may be empty: what is to go on is written to `out`, in the order in which it came.
    ///
    /// # Errors
    /// When the transform itself is broken; a record that it cannot handle is rejected instead.
    fn process(&mut self, batch: &Batch<'_>, out: &mut Output<'_>) -> Result<(), Error>;
}

/// Exports a type that implements [`Transform`] as the transform of this component. Once in a crate.
#[macro_export]
macro_rules! export_transform {
    ($transform:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::{Exported, TransformExport};

            struct Component;

            std::thread_local! {
                static INSTANCE: ::core::cell::RefCell<::core::option::Option<$transform>> =
                    const { ::core::cell::RefCell::new(::core::option::Option::None) };
            }

            impl TransformExport for Component {
                type Transform = $transform;

                fn with<R>(run: impl ::core::ops::FnOnce(&mut ::core::option::Option<$transform>) -> R) -> R {
                    INSTANCE.with(|instance| run(&mut instance.borrow_mut()))
                }
            }

            type Root = Exported<Component>;
    $crate::bindings::export_transform_world!(Root with_types_in $crate::bindings);
        };
    };
}
