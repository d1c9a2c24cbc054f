//! What `plugins/wit` says, as Rust: all worlds in one, of which a component fits some.

#![allow(missing_docs, unreachable_pub, unsafe_code, clippy::all, clippy::pedantic, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../wit",
    inline: "
        package towpath:host;

        world everything {
            include towpath:plugin/transform@0.1.0;
            include towpath:plugin/source@0.1.0;
            include towpath:plugin/sink@0.1.0;
        }
    ",
    world: "towpath:host/everything",
    imports: {
        "towpath:plugin/http.send": async | trappable,
        "towpath:plugin/tcp.connect": async | trappable,
        "towpath:plugin/tcp.read": async | trappable,
        "towpath:plugin/tcp.write": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    require_store_data_send: true,
});
