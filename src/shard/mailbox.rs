//! The only thing shards share: a bounded queue of posts for each, and a bell.
//!
//! A shard says that it sleeps before it waits, and looks into its queue once more; whoever posts looks whether it
//! sleeps after the post. One of the two sees the other, so no post is left lying, and a busy shard costs no system
//! call.

use super::stats::{Counters, Stats};
use crate::base::key::Key;
use crate::base::limits::MAILBOX_POSTS_MAX;
use crate::driver::Waker;
use crate::protocol::close::CloseCode;
use crate::protocol::message::{Message, Prepared};
use crossbeam_queue::ArrayQueue;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::time::Duration;

/// A session of a server: its shard and its key there. A session that has ended is not confused with a successor, of
/// which 16 million in the same slot are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey {
    pub(super) shard: u16,
    pub(super) key: Key,
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:?}", self.shard, self.key)
    }
}

/// What is put into a mailbox.
#[derive(Debug)]
pub(super) enum Post {
    Publish { topic: Arc<str>, message: Prepared },
    Send { session: Key, message: Prepared },
    Close { session: Key, code: CloseCode, reason: Box<str> },
}

/// One shard's end of the mail.
#[derive(Debug)]
pub(super) struct Mailbox {
    posts: ArrayQueue<Post>,
    sleeping: AtomicBool,
    /// Nanoseconds that the shard was told to end within, plus one; 0 while it was not. Not a post: it must get through.
    shutdown: AtomicU64,
    /// The shard has ended: nobody will take anything.
    ended: AtomicBool,
    waker: Waker,
    pub(super) counters: Counters,
}

impl Mailbox {
    pub(super) fn new(waker: Waker) -> Self {
        Self {
            posts: ArrayQueue::new(MAILBOX_POSTS_MAX),
            sleeping: AtomicBool::new(false),
            shutdown: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            waker,
            counters: Counters::default(),
        }
    }

    /// Puts a post in; gives it back if the mailbox is full. [`Mailbox::ring`] must follow. A shard that has ended has
    /// no sessions: what is posted to it is for nobody.
    pub(super) fn put(&self, post: Post) -> Result<(), Post> {
        if self.ended.load(Ordering::Relaxed) { Ok(()) } else { self.posts.push(post) }
    }

    /// Wakes the shard if it sleeps.
    pub(super) fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::SeqCst) && self.sleeping.swap(false, Ordering::SeqCst) {
            self.waker.wake();
        }
    }

    /// The owner's: says that it is about to wait. Answers whether it may: there is nothing to take.
    pub(super) fn fall_asleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.posts.is_empty() && self.shutdown.load(Ordering::SeqCst) == 0
    }

    /// The owner's: it has waited.
    pub(super) fn awake(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }

    /// The owner's: the deadline it was told to end within, once.
    pub(super) fn take_shutdown(&self) -> Option<Duration> {
        self.shutdown.swap(0, Ordering::SeqCst).checked_sub(1).map(Duration::from_nanos)
    }

    /// The owner's: the next post.
    pub(super) fn take(&self) -> Option<Post> {
        self.posts.pop()
    }
}

/// The mailboxes of a server's shards, by number.
#[derive(Clone, Debug)]
pub struct Mailboxes(Arc<[Mailbox]>);

impl Mailboxes {
    /// One mailbox for each shard; each rings with its driver's waker.
    pub fn new(wakers: impl IntoIterator<Item = Waker>) -> Self {
        Self(wakers.into_iter().map(Mailbox::new).collect())
    }

    pub(super) fn of(&self, shard: u16) -> &Mailbox {
        &self.0[usize::from(shard)]
    }

    /// Says that a shard has ended, however it did: nobody is to wait for its mailbox.
    pub fn end(&self, shard: u16) {
        if let Some(mailbox) = self.0.get(usize::from(shard)) {
            mailbox.ended.store(true, Ordering::SeqCst);
        }
    }

    pub(super) fn count(&self) -> u16 {
        self.0.len() as u16
    }
}

/// A mailbox is full: the shard is behind by some thousand posts. The post was dropped; try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailboxFull;

impl fmt::Display for MailboxFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a shard is behind by {MAILBOX_POSTS_MAX} posts")
    }
}

impl std::error::Error for MailboxFull {}

/// A running server, from any thread: to publish, to send, to close, to read its counters, to end it.
///
/// Posts of one thread to one shard arrive in order. A session that has ended swallows its posts.
#[derive(Clone, Debug)]
pub struct Handle {
    mailboxes: Mailboxes,
}

impl Handle {
    /// A handle to the shards behind these mailboxes.
    pub const fn new(mailboxes: Mailboxes) -> Self {
        Self { mailboxes }
    }

    /// Sends a message to every subscriber of a topic, on every shard. Cost: one encoding, one post a shard.
    ///
    /// # Errors
    /// A mailbox is full: the subscribers of that shard do not get it, the others do.
    pub fn publish<'a>(&self, topic: &str, message: impl Into<Message<'a>>) -> Result<(), MailboxFull> {
        self.publish_prepared(topic, &Prepared::new(message))
    }

    /// Like [`Handle::publish`], for a message that is encoded already.
    pub fn publish_prepared(&self, topic: &str, message: &Prepared) -> Result<(), MailboxFull> {
        let topic: Arc<str> = topic.into();
        let mut verdict = Ok(());
        for mailbox in &*self.mailboxes.0 {
            let post = Post::Publish { topic: topic.clone(), message: message.clone() };
            verdict = verdict.and(Self::post(mailbox, post));
        }
        verdict
    }

    /// Sends a message to one session.
    pub fn send<'a>(&self, session: SessionKey, message: impl Into<Message<'a>>) -> Result<(), MailboxFull> {
        let message = Prepared::new(message);
        self.post_to(session, Post::Send { session: session.key, message })
    }

    /// Closes one session with this code and reason.
    pub fn close(&self, session: SessionKey, code: CloseCode, reason: &str) -> Result<(), MailboxFull> {
        let post = Post::Close { session: session.key, code, reason: reason.into() };
        self.post_to(session, post)
    }

    /// Ends the server in order: no more connections, close frames with 1001, and the end of each shard once its
    /// sessions are gone, or `deadline` from now. The first call counts.
    pub fn shutdown(&self, deadline: Duration) {
        let nanos = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX).saturating_add(1);
        for mailbox in &*self.mailboxes.0 {
            mailbox.shutdown.store(nanos, Ordering::SeqCst);
            mailbox.ring();
        }
    }

    /// What all shards have counted, together.
    pub fn stats(&self) -> Stats {
        let mut all = Stats::default();
        for mailbox in &*self.mailboxes.0 {
            all += mailbox.counters.read();
        }
        all
    }

    /// A key of another server may name a shard that this one has not: nobody is there.
    fn post_to(&self, session: SessionKey, post: Post) -> Result<(), MailboxFull> {
        self.mailboxes.0.get(usize::from(session.shard)).map_or(Ok(()), |mailbox| Self::post(mailbox, post))
    }

    fn post(mailbox: &Mailbox, post: Post) -> Result<(), MailboxFull> {
        let put = mailbox.put(post);
        mailbox.ring();
        put.map_err(|_| MailboxFull)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Driver, Uring, UringConfig};

    #[test]
    fn a_full_mailbox_says_so_and_still_takes_the_end() {
        let driver = Uring::new(UringConfig::default()).expect("io_uring is allowed here");
        let mailboxes = Mailboxes::new([driver.waker()]);
        let handle = Handle::new(mailboxes.clone());
        for _ in 0..MAILBOX_POSTS_MAX {
            assert_eq!(handle.publish("news", "x"), Ok(()));
        }
        assert_eq!(handle.publish("news", "x"), Err(MailboxFull));
        handle.shutdown(Duration::from_secs(3));
        assert!(!mailboxes.of(0).fall_asleep());
        assert_eq!(mailboxes.of(0).take_shutdown(), Some(Duration::from_secs(3)));
        assert_eq!(mailboxes.of(0).take_shutdown(), None);
        let foreign = SessionKey { shard: 9, key: Key::new(0, 0) };
        assert_eq!(handle.send(foreign, "x"), Ok(()));
        mailboxes.end(0);
        assert_eq!(handle.publish("news", "x"), Ok(()));
    }
}
