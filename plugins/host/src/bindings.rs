//! What `plugins/wit` says, as Rust.

#![allow(missing_docs, unreachable_pub, unsafe_code, clippy::all, clippy::pedantic, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "transform",
    imports: { default: trappable },
    exports: { default: async },
    require_store_data_send: true,
});
