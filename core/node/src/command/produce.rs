//! `towpath produce`: lines from standard input.

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use towpath_client::{Acks, Codec as ClientCodec, Compression, ProducerConfig, ProducerRecord};
use towpath_types::{TopicName, limits};

use super::connection::connect;
use crate::cli::{AcksArgument, Codec, Produce};
use crate::failure::Failure;
use crate::output::{print_json, tell};

pub(super) async fn run(produce: Produce, json: bool) -> Result<(), Failure> {
    let client = connect(&produce.cluster.bootstrap_server).await?;
    let topic = TopicName::new(&produce.topic)?;
    let producer = client.producer(ProducerConfig {
        acks: match produce.acks {
            AcksArgument::All => Acks::All,
            AcksArgument::Leader => Acks::Leader,
            AcksArgument::None => Acks::None,
        },
        compression: codec(produce.compression),
        ..ProducerConfig::default()
    });
    let headers: Vec<_> =
        produce.headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_bytes()))).collect();
    let mut input = BufReader::new(tokio::io::stdin());
    let mut line = Vec::new();
    let mut records = 0u64;
    loop {
        line.clear();
        let limit = limits::LINE_BYTES_MAX as u64;
        if (&mut input).take(limit).read_until(b'\n', &mut line).await? == 0 {
            break;
        }
        if line.len() as u64 == limit && !line.ends_with(b"\n") {
            return Err(Failure::new(format!("line {} is longer than {limit} bytes", records + 1)));
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let (key, value) = split(text, produce.key_separator.as_deref());
        let value = value.filter(|value| !(produce.null && value.is_empty()));
        let record = ProducerRecord {
            partition: produce.partition,
            key,
            value,
            headers: &headers,
            ..ProducerRecord::new(&topic)
        };
        producer.send(record).await?;
        records += 1;
    }
    producer.flush().await?;
    if json {
        return print_json(&json!({ "topic": produce.topic, "records": records }));
    }
    let noun = if records == 1 { "record" } else { "records" };
    tell(&format!("{records} {noun} written to {topic}"));
    Ok(())
}

fn split<'a>(line: &'a [u8], separator: Option<&str>) -> (Option<&'a [u8]>, Option<&'a [u8]>) {
    let Some(separator) = separator.map(str::as_bytes).filter(|separator| !separator.is_empty()) else {
        return (None, Some(line));
    };
    match line.windows(separator.len()).position(|window| window == separator) {
        Some(at) => (Some(&line[..at]), Some(&line[at + separator.len()..])),
        None => (None, Some(line)),
    }
}

fn codec(codec: Codec) -> ClientCodec {
    ClientCodec::from(match codec {
        Codec::None => Compression::None,
        Codec::Gzip => Compression::Gzip,
        Codec::Snappy => Compression::Snappy,
        Codec::Lz4 => Compression::Lz4,
        Codec::Zstd => Compression::Zstd,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_split_at_the_first_separator() {
        assert_eq!(split(b"a:b:c", Some(":")), (Some(&b"a"[..]), Some(&b"b:c"[..])));
        assert_eq!(split(b"abc", Some(":")), (None, Some(&b"abc"[..])));
        assert_eq!(split(b"a:b", None), (None, Some(&b"a:b"[..])));
        assert_eq!(split(b"a=>b", Some("=>")), (Some(&b"a"[..]), Some(&b"b"[..])));
    }
}
