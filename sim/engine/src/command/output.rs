//! A file for what a run came to, opened before the first world: hours of worlds are not lost to a wrong
//! path. Never left with what an earlier run wrote.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::find::Usage;

/// An open file, empty so far.
pub(super) struct Output {
    what: &'static str,
    path: PathBuf,
    file: File,
}

impl Output {
    /// `what`: what is to be written, as in `the summary`.
    pub(super) fn open(path: &Path, what: &'static str) -> Result<Self, Usage> {
        let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        match folder.and_then(|()| File::create(path)) {
            Ok(file) => Ok(Output { what, path: path.to_owned(), file }),
            Err(cause) => Err(cannot(what, path, &cause)),
        }
    }

    pub(super) fn write(&self, text: &str) -> Result<(), Usage> {
        let written = (&self.file).write_all(text.as_bytes());
        written.map_err(|cause| cannot(self.what, &self.path, &cause))
    }
}

fn cannot(what: &str, path: &Path, cause: &std::io::Error) -> Usage {
    Usage(format!("{what} cannot be written to {}: {cause}", path.display()))
}
