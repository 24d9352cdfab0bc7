//! The simulated mail server: a folder with an `.eml` file for each copy sent. A file is whole and
//! durable when it bears its name. Never overwrites a copy, never dedupes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use ports::Runtime;

use crate::mail::Mail;
use crate::rules::Answer;
use crate::sink::MailSink;

/// A folder of mails.
pub struct EmlFolder {
    folder: PathBuf,
    runtime: Arc<dyn Runtime>,
}

impl EmlFolder {
    /// Mails go to this folder, which is made with the first of them. `runtime` is the node that
    /// waits for the disk.
    pub fn new(folder: impl Into<PathBuf>, runtime: Arc<dyn Runtime>) -> Self {
        EmlFolder { folder: folder.into(), runtime }
    }
}

#[async_trait]
impl MailSink for EmlFolder {
    /// No refusal is for good here: a full or missing disk is repaired, and the mail sent again.
    async fn send(&self, mail: &Mail) -> Answer {
        let mut answer = Answer::Unknown;
        self.runtime.block(&mut || match keep(&self.folder, mail) {
            Ok(_) => answer = Answer::Sent,
            Err(error) => tracing::warn!(mail = mail.message_id, %error, "a mail was not kept"),
        });
        answer
    }
}

/// Writes a copy under the first free number.
fn keep(folder: &Path, mail: &Mail) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let stem = mail.message_id.split('@').next().unwrap_or_default();
    let mut number = 1_u32;
    loop {
        let copy = folder.join(format!("{stem}.{number}.eml"));
        let part = folder.join(format!(".{stem}.{number}.part"));
        // Whoever makes the part owns the number: nobody else can make the copy of it.
        match OpenOptions::new().write(true).create_new(true).open(&part) {
            Ok(file) if !copy.try_exists()? => {
                let written = finish(file, mail, &part, &copy);
                if written.is_err() {
                    // The number stays unused if this fails too.
                    let _ = fs::remove_file(&part);
                }
                written?;
                if cfg!(unix) {
                    File::open(folder)?.sync_all()?;
                }
                return Ok(copy);
            }
            Ok(_) => fs::remove_file(&part)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        number = number.checked_add(1).ok_or(ErrorKind::AlreadyExists)?;
    }
}

fn finish(mut file: File, mail: &Mail, part: &Path, copy: &Path) -> io::Result<()> {
    file.write_all(mail.text().as_bytes())?;
    file.sync_all()?;
    fs::rename(part, copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Wanted;
    use chrono::DateTime;
    use contract::{NotificationChannel, NotificationType, OrderId};

    fn mail(order: &str) -> Mail {
        let order_id = OrderId::parse(order).unwrap();
        let (kind, channel) = (NotificationType::Confirmed, NotificationChannel::Email);
        Mail::new(&Wanted { order_id, kind, channel, revision: 1 }, DateTime::UNIX_EPOCH)
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn each_copy_is_a_whole_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("mails");
        for _ in 0..2 {
            keep(&inside, &mail("o1")).unwrap();
        }
        assert_eq!(names(&inside), ["o1.confirmed.1.1.eml", "o1.confirmed.1.2.eml"]);
        for name in names(&inside) {
            assert_eq!(fs::read_to_string(inside.join(name)).unwrap(), mail("o1").text());
        }
    }

    #[test]
    fn what_a_crash_left_is_stepped_over() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".o1.confirmed.1.1.part"), "From: Ord").unwrap();
        let copy = keep(folder.path(), &mail("o1")).unwrap();
        assert_eq!(copy, folder.path().join("o1.confirmed.1.2.eml"));
    }

    #[test]
    fn the_longest_and_strangest_id_stays_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let id = "/..".repeat(21);
        let copy = keep(folder.path(), &mail(&id)).unwrap();
        assert_eq!(copy.parent(), Some(folder.path()));
        assert_eq!(names(folder.path()).len(), 1);
    }

    #[test]
    fn a_folder_that_cannot_be_is_an_error_without_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("taken");
        fs::write(&file, "").unwrap();
        assert!(keep(&file, &mail("o1")).is_err());
        assert_eq!(names(folder.path()), ["taken"]);
    }
}
