//! Checks, and the way into a task.

use std::fs;
use std::io;
use std::num::NonZeroU32;
use std::path::PathBuf;

use async_trait::async_trait;
use towpath_api::{ConnectorError, Source, SourceConnector, SourceOffsets, TaskContext, TaskSpec};

use super::options::Options;
use super::task::Task;

/// A configured `file` source.
#[derive(Debug)]
pub(crate) struct Connector {
    options: Options,
}

impl Connector {
    pub(crate) const fn new(options: Options) -> Self {
        Self { options }
    }
}

/// The files that match now, in the order of their names.
pub(crate) fn matching(options: &Options) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for pattern in &options.paths {
        let entries = match fs::read_dir(&pattern.directory) {
            Ok(entries) => entries,
            // A directory that comes later is no error while files are followed.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !options.once => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            let named = path.file_name().is_some_and(|name| pattern.names.is_match(name));
            if named && path.is_file() && !found.contains(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What an error of the file system means for the task.
pub(crate) fn classify(error: io::Error, path: &std::path::Path) -> ConnectorError {
    let what = format!("{} cannot be read", path.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied => ConnectorError::needs_operator("FILE_PERMISSION", what)
            .with_hint("give the user that runs towpath the right to read it"),
        io::ErrorKind::NotFound => ConnectorError::needs_operator("FILE_NOT_FOUND", what)
            .with_hint("paths are meant from where towpath was started"),
        _ => ConnectorError::retry("FILE_IO", what),
    }
    .with_cause(error)
    .with_path("paths")
}

#[async_trait]
impl SourceConnector for Connector {
    async fn check(&self, _context: &TaskContext) -> Result<Vec<String>, Vec<ConnectorError>> {
        let mut errors = Vec::new();
        let mut lines = Vec::new();
        match matching(&self.options) {
            Ok(files) if files.is_empty() => {
                let patterns =
                    self.options.paths.iter().map(|path| path.text.as_str()).collect::<Vec<_>>().join(", ");
                if self.options.once {
                    errors.push(
                        ConnectorError::needs_operator(
                            "FILE_NOT_FOUND",
                            format!("no file matches {patterns}"),
                        )
                        .with_path("paths")
                        .with_hint("paths are meant from where towpath was started"),
                    );
                } else {
                    lines.push(format!("no file matches {patterns} yet; files that come will be read"));
                }
            }
            Ok(files) => {
                for path in files {
                    match fs::File::open(&path) {
                        Ok(_) => lines.push(format!("{} can be read", path.display())),
                        Err(error) => errors.push(classify(error, &path)),
                    }
                }
            }
            Err(error) => errors.push(classify(error, &self.options.paths[0].directory)),
        }
        if errors.is_empty() { Ok(lines) } else { Err(errors) }
    }

    async fn plan(&self, _tasks_max: NonZeroU32) -> Result<Vec<TaskSpec>, ConnectorError> {
        Ok(vec![TaskSpec::default()])
    }

    async fn open(
        &self,
        _task: TaskSpec,
        resume: SourceOffsets,
        context: TaskContext,
    ) -> Result<Box<dyn Source>, ConnectorError> {
        Ok(Box::new(Task::open(self.options.clone(), resume, context)?))
    }
}
