//! AssignReplicasToDirs: the request, the response and the frame.

#![no_main]

libfuzzer_sys::fuzz_target!(
    |data: &[u8]| towpath_fuzz::exercise::<towpath_wire::AssignReplicasToDirsRequest>(data)
);
