//! Which topics of the source there are.

use towpath_client::{Admin, ClientError, ErrorCode, TopicDescription};
use towpath_types::TopicName;

use super::{LinkConfig, LinkError};
use crate::naming::{HEARTBEATS, Naming, is_internal};

/// A topic of the source that is mirrored.
#[derive(Debug, Clone)]
pub(crate) struct Mirrored {
    pub(crate) source: TopicDescription,
    pub(crate) target: TopicName,
}

/// The topics of the source that the link takes.
pub(crate) async fn wanted(config: &LinkConfig, source: &Admin) -> Result<Vec<Mirrored>, LinkError> {
    let listed = source.list_topics().await.map_err(LinkError::Source)?;
    // With identical names heartbeats would meet those of the target.
    let beats = config.mirrormaker_topics && config.naming == Naming::Prefixed;
    let taken = |name: &TopicName| {
        !is_internal(name.as_str())
            && config.topics.takes(name.as_str())
            && !config.naming.goes_round(&config.to, name)
            || beats && name.as_str() == HEARTBEATS
    };
    let taken: Vec<TopicName> =
        listed.into_iter().filter(|topic| !topic.internal).map(|topic| topic.name).filter(taken).collect();
    let mut wanted = Vec::new();
    for (name, described) in source.describe_topics(&taken).await.map_err(LinkError::Source)? {
        match described {
            Ok(source) => {
                wanted.push(Mirrored { target: config.naming.target(&config.from, &name)?, source })
            }
            // Deleted meanwhile.
            Err(error) if is_unknown(&error) => {}
            Err(error) => return Err(LinkError::Source(error)),
        }
    }
    Ok(wanted)
}

pub(crate) fn is_unknown(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::UnknownTopic { .. }
            | ClientError::Broker { code: ErrorCode::UnknownTopicOrPartition, .. }
    )
}
