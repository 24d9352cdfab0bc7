//! The simulated mail server: a folder with an `.eml` file for each copy sent. A file is whole and
//! durable when it bears its name. Never overwrites a copy, never dedupes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use crate::mail::Mail;
use crate::rules::Answer;
use crate::sink::MailSink;

/// So many mails wait for the disk; who sends more waits for a place.
const WAITING: usize = 64;

/// A mail on its way to the disk, and whom to tell.
struct Posted {
    mail: Mail,
    kept: oneshot::Sender<()>,
}

/// A folder of mails. Those that are sent at the same time share the syncs of the folder.
pub struct EmlFolder {
    /// There until it is dropped.
    post: Option<mpsc::Sender<Posted>>,
    writer: Option<JoinHandle<()>>,
}

impl Drop for EmlFolder {
    /// What was taken and is waited for is kept.
    fn drop(&mut self) {
        self.post = None;
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the thread that keeps mails panicked");
        }
    }
}

impl EmlFolder {
    /// Mails go to this folder, which is made with the first of them. Fails where no thread can be
    /// started for it.
    pub fn open(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = folder.into();
        let (post, posted) = mpsc::channel(WAITING);
        let writer = Some(start_writer(folder, posted)?);
        Ok(EmlFolder { post: Some(post), writer })
    }
}

#[async_trait]
impl MailSink for EmlFolder {
    /// No refusal is for good here: a full or missing disk is repaired, and the mail sent again.
    async fn send(&self, mail: &Mail) -> Answer {
        let (kept, wait) = oneshot::channel();
        let posted = Posted { mail: mail.clone(), kept };
        let Some(post) = &self.post else { return Answer::Unknown };
        let sent = post.send(posted).await.is_ok() && wait.await.is_ok();
        if sent { Answer::Sent } else { Answer::Unknown }
    }
}

/// One thread writes: it takes what is there and is still waited for, and tells of each that is durable.
#[allow(clippy::disallowed_methods, reason = "a sync blocks; the mailbox is outside the services")]
fn start_writer(folder: PathBuf, mut posted: mpsc::Receiver<Posted>) -> io::Result<JoinHandle<()>> {
    let write = move || {
        let mut batch = Vec::new();
        while posted.blocking_recv_many(&mut batch, WAITING) > 0 {
            // Who stopped waiting sends again.
            batch.retain(|posted| !posted.kept.is_closed());
            if batch.is_empty() {
                continue;
            }
            let mails: Vec<&Mail> = batch.iter().map(|posted| &posted.mail).collect();
            for (outcome, Posted { mail, kept }) in
                keep(&folder, &mails).into_iter().zip(batch.drain(..))
            {
                match outcome {
                    // Its sender may have stopped waiting meanwhile.
                    Ok(_) => drop(kept.send(())),
                    Err(error) => {
                        tracing::warn!(mail = mail.message_id, %error, "a mail was not kept");
                    }
                }
            }
        }
    };
    std::thread::Builder::new().name("mailbox".to_owned()).spawn(write)
}

/// Writes a copy of each under its first free number, and syncs the folder once for all.
fn keep(folder: &Path, mails: &[&Mail]) -> Vec<io::Result<PathBuf>> {
    let parts: Vec<io::Result<Part>> = mails.iter().map(|mail| Part::write(folder, mail)).collect();
    let copies: Vec<io::Result<PathBuf>> = parts.into_iter().map(|part| part?.finish()).collect();
    match sync_folder(folder) {
        Ok(()) => copies,
        Err(error) => copies.into_iter().map(|_| Err(io::Error::from(error.kind()))).collect(),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// A copy that does not bear its name yet.
struct Part {
    file: File,
    path: PathBuf,
    copy: PathBuf,
}

impl Part {
    fn write(folder: &Path, mail: &Mail) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let stem = mail.message_id.split('@').next().unwrap_or_default();
        let mut number = 1_u32;
        loop {
            let copy = folder.join(format!("{stem}.{number}.eml"));
            let path = folder.join(format!(".{stem}.{number}.part"));
            // Whoever makes the part owns the number: nobody else can make the copy of it.
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(mut file) if !copy.try_exists()? => {
                    return match file.write_all(mail.text().as_bytes()) {
                        Ok(()) => Ok(Part { file, path, copy }),
                        Err(error) => Err(give_up(&path, error)),
                    };
                }
                Ok(_) => fs::remove_file(&path)?,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            number = number.checked_add(1).ok_or(ErrorKind::AlreadyExists)?;
        }
    }

    fn finish(self) -> io::Result<PathBuf> {
        let Part { file, path, copy } = self;
        match file.sync_all().and_then(|()| fs::rename(&path, &copy)) {
            Ok(()) => Ok(copy),
            Err(error) => Err(give_up(&path, error)),
        }
    }
}

/// The number stays unused where even this fails.
fn give_up(part: &Path, error: io::Error) -> io::Error {
    let _ = fs::remove_file(part);
    error
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
        let twins = [&mail("o1"), &mail("o1")];
        assert!(keep(&inside, &twins).iter().all(Result::is_ok));
        assert_eq!(names(&inside), ["o1.confirmed.1.1.eml", "o1.confirmed.1.2.eml"]);
        for name in names(&inside) {
            assert_eq!(fs::read_to_string(inside.join(name)).unwrap(), mail("o1").text());
        }
    }

    #[test]
    fn what_a_crash_left_is_stepped_over() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".o1.confirmed.1.1.part"), "From: Ord").unwrap();
        let copy = keep(folder.path(), &[&mail("o1")]).remove(0).unwrap();
        assert_eq!(copy, folder.path().join("o1.confirmed.1.2.eml"));
    }

    #[test]
    fn the_longest_and_strangest_id_stays_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let id = "/..".repeat(21);
        let copy = keep(folder.path(), &[&mail(&id)]).remove(0).unwrap();
        assert_eq!(copy.parent(), Some(folder.path()));
        assert_eq!(names(folder.path()).len(), 1);
    }

    #[test]
    fn a_mail_that_nobody_waits_for_any_more_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (post, posted) = mpsc::channel(WAITING);
        let send = |order| {
            let (kept, wait) = oneshot::channel();
            post.blocking_send(Posted { mail: mail(order), kept }).unwrap();
            wait
        };
        drop(send("left"));
        let stays = send("stays");
        let writer = start_writer(folder.path().to_owned(), posted).unwrap();
        stays.blocking_recv().unwrap();
        drop(post);
        writer.join().unwrap();
        assert_eq!(names(folder.path()), ["stays.confirmed.1.1.eml"]);
    }

    #[test]
    fn a_folder_that_cannot_be_is_an_error_without_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("taken");
        fs::write(&file, "").unwrap();
        assert!(keep(&file, &[&mail("o1")])[0].is_err());
        assert_eq!(names(folder.path()), ["taken"]);
    }
}
