//! `${env:NAME}` and `${file:PATH}` in any text of the YAML.

use std::path::Path;

use towpath_types::limits;

use super::problem::Problem;
use super::secrets::Secrets;
use super::tree::{Node, Value};

/// Where secrets come from; a trait of its own so that tests need not change the process's environment.
pub(crate) trait Environment {
    /// The variable `name`, if it is set and Unicode.
    fn variable(&self, name: &str) -> Option<String>;
}

/// The process's own environment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// Replaces every reference below `node`; what came out of one is a secret from then on.
pub(crate) fn resolve(
    node: &mut Node,
    environment: &dyn Environment,
    secrets: &Secrets,
    problems: &mut Vec<Problem>,
) {
    match &mut node.value {
        Value::String(text) if text.contains("${") || text.contains("$$") => {
            match resolve_text(text, environment, Path::new(""), secrets) {
                Ok(resolved) => *text = resolved,
                Err(reference) => {
                    problems.push(reference.problem(node));
                    node.value = Value::Unresolved;
                }
            }
        }
        Value::List(items) => {
            items.iter_mut().for_each(|item| resolve(item, environment, secrets, problems));
        }
        Value::Map(entries) => {
            entries.iter_mut().for_each(|(_, value)| resolve(value, environment, secrets, problems));
        }
        _ => {}
    }
}

struct BadReference {
    message: String,
    hint: String,
}

impl BadReference {
    fn problem(self, node: &Node) -> Problem {
        Problem::new("CONFIG_SECRET", node.place.clone(), self.message).with_hint(self.hint)
    }
}

fn resolve_text(
    text: &str,
    environment: &dyn Environment,
    directory: &Path,
    secrets: &Secrets,
) -> Result<String, BadReference> {
    let mut resolved = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        resolved.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(tail) = rest.strip_prefix("$${") {
            // `$${` is a literal `${`.
            resolved.push_str("${");
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix("${") {
            let Some((reference, tail)) = tail.split_once('}') else {
                return Err(BadReference {
                    message: "a `${` without its `}`".to_owned(),
                    hint: "write ${env:NAME} or ${file:PATH}; a literal `${` is written `$${`".to_owned(),
                });
            };
            let secret = lookup(reference, environment, directory)?;
            secrets.add(&secret);
            resolved.push_str(&secret);
            rest = tail;
        } else {
            resolved.push('$');
            rest = &rest[1..];
        }
    }
    resolved.push_str(rest);
    secrets.add_url(&resolved);
    Ok(resolved)
}

fn lookup(reference: &str, environment: &dyn Environment, directory: &Path) -> Result<String, BadReference> {
    match reference.split_once(':') {
        Some(("env", name)) => environment.variable(name).ok_or_else(|| BadReference {
            message: format!("the environment variable `{name}` is not set"),
            hint: format!("set it before you start towpath: export {name}=…"),
        }),
        Some(("file", path)) => read_secret_file(&directory.join(path)),
        _ => Err(BadReference {
            message: format!("`${{{reference}}}` is no reference that Towpath knows"),
            hint: "write ${env:NAME} or ${file:PATH}; a literal `${` is written `$${`".to_owned(),
        }),
    }
}

fn read_secret_file(path: &Path) -> Result<String, BadReference> {
    let unreadable = |error: std::io::Error| BadReference {
        message: format!("the secret file {} cannot be read: {error}", path.display()),
        hint: "relative paths are meant from the directory in which towpath was started".to_owned(),
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > limits::SECRET_BYTES_MAX {
        return Err(BadReference {
            message: format!("the secret file {} has {size} bytes", path.display()),
            hint: format!("a secret has at most {} bytes", limits::SECRET_BYTES_MAX),
        });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Environment for Fixed {
        fn variable(&self, name: &str) -> Option<String> {
            (name == "PW").then(|| "hunter2".to_owned())
        }
    }

    fn resolved(text: &str, directory: &Path) -> Result<String, String> {
        let secrets = Secrets::default();
        resolve_text(text, &Fixed, directory, &secrets).map_err(|reference| reference.message)
    }

    #[test]
    fn references_are_replaced_and_literals_stay() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("pw"), "s3cret\n").unwrap();
        let here = directory.path();
        assert_eq!(resolved("postgres://u:${env:PW}@h/db", here).unwrap(), "postgres://u:hunter2@h/db");
        assert_eq!(resolved("<${file:pw}>", here).unwrap(), "<s3cret>");
        assert_eq!(resolved("$5 $${env:PW} $", here).unwrap(), "$5 ${env:PW} $");
        assert!(resolved("${env:NOPE}", here).unwrap_err().contains("`NOPE` is not set"));
        assert!(resolved("${file:nope}", here).unwrap_err().contains("cannot be read"));
        assert!(resolved("${PW}", here).unwrap_err().contains("no reference"));
        assert!(resolved("${env:PW", here).unwrap_err().contains("without"));
    }

    #[test]
    fn what_was_resolved_is_redacted() {
        let secrets = Secrets::default();
        let _ = resolve_text("x${env:PW}", &Fixed, Path::new("."), &secrets).map_err(|_| ()).unwrap();
        assert_eq!(secrets.redact("got hunter2"), "got ***");
    }
}
