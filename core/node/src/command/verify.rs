//! `towpath verify`: whether the target of a mirror has what the source has.

use serde_json::json;

use super::mirror::{declared, mirrors_of};
use crate::cli::Verify;
use crate::failure::Failure;
use crate::mirrors;
use crate::output::{Listing, print_json, tell};

pub(super) async fn run(verify: Verify, json: bool) -> Result<(), Failure> {
    let config = declared(&mirrors_of(verify.files), json)?;
    if let Some(unknown) =
        verify.mirrors.iter().find(|name| !config.mirrors.iter().any(|it| it.name == **name))
    {
        let known: Vec<_> = config.mirrors.iter().map(|mirror| mirror.name.as_str()).collect();
        return Err(Failure::new(format!("the files declare no mirror `{unknown}`"))
            .with_hint(format!("they declare: {}", known.join(", "))));
    }
    let wanted = |name: &String| verify.mirrors.is_empty() || verify.mirrors.contains(name);
    let (mut all, mut different) = (Vec::new(), 0);
    for mirror in config.mirrors.iter().filter(|mirror| wanted(&mirror.name)) {
        let name = &mirror.name;
        let link = mirrors::link(mirror);
        let done = towpath_mirror::verify(&link, |it| {
            // Each partition may take long.
            tell(&format!("{name}: {}-{} compared, {} records", it.topic, it.partition, it.records));
            different += usize::from(it.difference.is_some());
            all.push((name.clone(), it));
        });
        done.await.map_err(|error| Failure::new(format!("{name}: {error}")))?;
    }
    let partitions = all.len();
    if json {
        let each = all.iter().map(|(name, it)| json!({ "mirror": name, "verified": it }));
        print_json(&json!(each.collect::<Vec<_>>()))?;
    } else {
        let mut listing = Listing::new(&[
            ("MIRROR", "mirror"),
            ("TOPIC", "topic"),
            ("PARTITION", "partition"),
            ("TARGET", "target"),
            ("THROUGH", "through"),
            ("RECORDS", "records"),
            ("PASSED OVER", "passed_over"),
            ("RESULT", "result"),
        ]);
        for (name, it) in &all {
            let result = it.difference.as_ref().map_or_else(|| "equal".to_owned(), ToString::to_string);
            listing.row(vec![
                json!(name),
                json!(it.topic),
                json!(it.partition),
                json!(it.target),
                json!(it.through),
                json!(it.records),
                json!(it.passed_over),
                json!(result),
            ]);
        }
        listing.print(false)?;
    }
    match different {
        0 => Ok(()),
        _ => Err(Failure::new(format!("{different} of {partitions} partitions differ"))),
    }
}
