//! ApiVersions.

use towpath_wire::ApiVersionsRequest;

use super::header;
use crate::talk::{Talk, versions};

pub(super) async fn run(talk: &mut Talk<'_>) {
    for version in versions::<ApiVersionsRequest>() {
        let named = |name: &str, number: &str| ApiVersionsRequest {
            client_software_name: name.to_owned(),
            client_software_version: number.to_owned(),
        };
        talk.call(version, "all APIs", &named("golden", "1.0")).await;
        if version >= 3 {
            talk.call(version, "no name", &named("", "1.0")).await;
            talk.call(version, "no such name", &named("a name", "1.0")).await;
            talk.call(version, "no such number", &named("golden", "1.0?")).await;
        }
    }
    // KIP-511: whatever follows, the answer is of version 0.
    for version in [5, 6, 99, i16::MAX] {
        talk.call_raw("a version from the future", &header(18, version, &[0, 1, 2, 3])).await;
    }
    talk.call_raw("a version from the future without a body", &header(18, 77, &[0])).await;
    talk.call_raw("a version from the future whose header ends early", &header(18, 78, &[])).await;
}
