//! The only thing shards share: a bounded queue of posts for each, and a bell.
//!
//! Why no post is left lying though a busy shard is never rung stands in `doorbell`.

use super::doorbell::Doorbell;
use super::stats::{Counters, Stats};
use crate::base::fault::{Fault, planted};
use crate::base::key::Key;
use crate::base::limits::{
    MAILBOX_BYTES_MAX, MAILBOX_POSTS_MAX, OUTBOX_BYTES_HIGH, OUTBOX_BYTES_LOW, OUTBOX_POSTS_HIGH, OUTBOX_POSTS_LOW,
    OUTBOX_POSTS_MAX,
};
use crate::driver::Waker;
use crate::protocol::close::CloseCode;
use crate::protocol::message::{Message, Prepared};
use crossbeam_queue::ArrayQueue;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    Publish {
        topic: Arc<str>,
        message: Prepared,
        key: u64,
        origin: Option<SessionKey>,
    },
    Send {
        session: Key,
        message: Prepared,
        /// What `Session::send_keyed` was given.
        key: Option<u64>,
        origin: Option<SessionKey>,
    },
    Close {
        session: Key,
        code: CloseCode,
        reason: Box<str>,
    },
    /// A session fills the queue of one that is high: it is held back …
    Hold {
        session: Key,
    },
    /// … until this comes.
    Release {
        session: Key,
    },
    /// The topics, and how many subscribers each has.
    ListTopics {
        answer: Sender<Vec<(Arc<str>, usize)>>,
    },
}

impl Post {
    /// Whether it is put into an outbox that is full: nothing makes up for its loss, and there is at most one for each
    /// session and consumer.
    pub(super) const fn must_arrive(&self) -> bool {
        matches!(self, Self::Close { .. } | Self::Hold { .. } | Self::Release { .. })
    }

    /// Bytes of its message, which may be others' as well.
    fn bytes(&self) -> usize {
        match self {
            Self::Publish { message, .. } | Self::Send { message, .. } => message.frame().len(),
            Self::Close { .. } | Self::Hold { .. } | Self::Release { .. } | Self::ListTopics { .. } => 0,
        }
    }
}

/// How a server ends in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Over how long the goodbyes are spread, so that clients do not all come back at once. Zero: all at once.
    pub window: Duration,
    /// When it ends whoever is left, from the call on.
    pub deadline: Duration,
    /// What the close frames say: 1001, or 1012 if the server will be back soon.
    pub code: CloseCode,
    /// And why, in at most 123 bytes.
    pub reason: String,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            window: Duration::ZERO,
            deadline: Duration::from_secs(10),
            code: CloseCode::GOING_AWAY,
            reason: "the server shuts down".to_owned(),
        }
    }
}

impl Drain {
    /// Takes what comes sooner of both, and says what the later one says.
    fn hasten(&mut self, later: &Self) {
        self.window = self.window.min(later.window);
        self.deadline = self.deadline.min(later.deadline);
        self.code = later.code;
        self.reason.clone_from(&later.reason);
    }
}

/// Posts for one other shard, until its mailbox takes them.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    posts: VecDeque<Post>,
    /// Of their messages.
    bytes: usize,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.posts.is_empty()
    }

    /// Puts a post behind those that wait. `false` if there are too many, and it may be let go.
    pub(super) fn push(&mut self, post: Post) -> bool {
        let is_taken = self.posts.len() < OUTBOX_POSTS_MAX || post.must_arrive();
        if is_taken {
            self.bytes += post.bytes();
            self.posts.push_back(post);
        }
        is_taken
    }

    /// Puts as many as it takes into a mailbox.
    pub(super) fn deliver_to(&mut self, mailbox: &Mailbox) {
        while let Some(post) = self.posts.pop_front() {
            let bytes = post.bytes();
            match mailbox.put(post) {
                Err(_) if planted(Fault::PostSwallowed) => self.bytes -= bytes,
                Err(post) => return self.posts.push_front(post),
                Ok(()) => self.bytes -= bytes,
            }
        }
    }

    /// Whether whoever adds to it is to be held back.
    pub(super) fn is_high(&self) -> bool {
        self.posts.len() >= OUTBOX_POSTS_HIGH || self.bytes >= OUTBOX_BYTES_HIGH
    }

    /// Whether nobody has to be held back any more.
    pub(super) fn is_low(&self) -> bool {
        self.posts.len() <= OUTBOX_POSTS_LOW && self.bytes <= OUTBOX_BYTES_LOW
    }
}

/// One shard's end of the mail.
#[derive(Debug)]
pub(super) struct Mailbox {
    posts: ArrayQueue<Post>,
    /// Of the messages among them.
    bytes: AtomicUsize,
    bell: Doorbell,
    /// What the shard was told of its end and has not seen. Not a post: it must get through.
    drain: Mutex<Option<Drain>>,
    /// Whether something stands there.
    has_drain: AtomicBool,
    /// The shard has ended: nobody will take anything.
    ended: AtomicBool,
    /// Topics on which other threads are to hold back, with the number of consumers that ask for it …
    congested: Mutex<HashMap<Arc<str>, u32>>,
    /// … and how many topics those are: most of the time none, and then nobody locks.
    congested_count: AtomicUsize,
    waker: Waker,
    pub(super) counters: Counters,
}

impl Mailbox {
    pub(super) fn new(waker: Waker, posts_max: usize) -> Self {
        Self {
            posts: ArrayQueue::new(posts_max),
            bytes: AtomicUsize::new(0),
            bell: Doorbell::new(),
            drain: Mutex::new(None),
            has_drain: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            congested: Mutex::default(),
            congested_count: AtomicUsize::new(0),
            waker,
            counters: Counters::default(),
        }
    }

    /// Puts a post in; gives it back if the mailbox is full. [`Mailbox::ring`] must follow. A shard that has ended has
    /// no sessions: what is posted to it is for nobody.
    pub(super) fn put(&self, post: Post) -> Result<(), Post> {
        if self.ended.load(Ordering::Relaxed) {
            return Ok(());
        }
        let bytes = post.bytes();
        // Counted before it can be taken out. Where two come together, both may be refused that would have fitted one by one.
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let has_room = bytes == 0 || before == 0 || before + bytes <= MAILBOX_BYTES_MAX;
        let put = if has_room { self.posts.push(post) } else { Err(post) };
        if put.is_err() {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        put
    }

    /// Wakes the shard if it sleeps.
    pub(super) fn ring(&self) {
        if !planted(Fault::BellForgotten) && self.bell.must_wake() {
            self.waker.wake();
        }
    }

    /// The owner's: says that it is about to wait. Answers whether it may: there is nothing to take.
    pub(super) fn fall_asleep(&self) -> bool {
        self.bell.fall_asleep(|| (self.posts.is_empty() || planted(Fault::SleepsWithMail)) && !self.has_drain())
    }

    /// The owner's: it has waited.
    pub(super) fn awake(&self) {
        self.bell.awake();
    }

    /// The owner's: whether it was told to end.
    pub(super) fn has_drain(&self) -> bool {
        self.has_drain.load(Ordering::SeqCst)
    }

    /// The owner's: posts that lie here now.
    pub(super) fn post_count(&self) -> usize {
        self.posts.len()
    }

    fn tell_drain(&self, drain: &Drain) {
        lock(&self.drain).get_or_insert_with(|| drain.clone()).hasten(drain);
        self.has_drain.store(true, Ordering::SeqCst);
        self.ring();
    }

    /// The owner's: what it was told of its end, once.
    pub(super) fn take_drain(&self) -> Option<Drain> {
        if !self.has_drain.load(Ordering::SeqCst) {
            return None;
        }
        // Before it is taken away: whoever asks meanwhile is not told that the server goes on.
        self.counters.draining.set(1);
        self.has_drain.store(false, Ordering::SeqCst);
        lock(&self.drain).take()
    }

    /// The owner's: the next post.
    pub(super) fn take(&self) -> Option<Post> {
        let post = self.posts.pop()?;
        self.bytes.fetch_sub(post.bytes(), Ordering::Relaxed);
        Some(post)
    }

    /// The owner's: one more consumer cannot take what other threads publish on a topic.
    pub(super) fn congest(&self, topic: Arc<str>) {
        let mut congested = lock(&self.congested);
        *congested.entry(topic).or_default() += 1;
        self.congested_count.store(congested.len(), Ordering::SeqCst);
    }

    /// The owner's: one consumer fewer.
    pub(super) fn relieve(&self, topic: &str) {
        let mut congested = lock(&self.congested);
        if let Some(count) = congested.get_mut(topic) {
            *count -= 1;
            if *count == 0 {
                congested.remove(topic);
            }
        }
        self.congested_count.store(congested.len(), Ordering::SeqCst);
    }

    fn is_congested(&self, topic: &str) -> bool {
        self.congested_count.load(Ordering::SeqCst) > 0 && lock(&self.congested).contains_key(topic)
    }
}

/// Nobody panics while holding one of these; if it happened, what they hold would still be whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The mailboxes of a server's shards, by number.
#[derive(Clone, Debug)]
pub struct Mailboxes(Arc<[Mailbox]>);

impl Mailboxes {
    /// One mailbox for each shard; each rings with its driver's waker.
    pub fn new(wakers: impl IntoIterator<Item = Waker>) -> Self {
        Self::with_capacity(wakers, MAILBOX_POSTS_MAX)
    }

    /// The same for so many posts each, at least 1: small ones are full more often.
    pub fn with_capacity(wakers: impl IntoIterator<Item = Waker>, posts_max: usize) -> Self {
        Self(wakers.into_iter().map(|waker| Mailbox::new(waker, posts_max)).collect())
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

/// Why a post was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostError {
    /// A shard is behind by some thousand posts. What was for it was dropped; what was for others was not.
    MailboxFull,
    /// Somebody's queue on this topic is high whose policy is [`Policy::PauseProducer`](super::Policy::PauseProducer).
    /// Nothing was published: try again later.
    Congested,
}

impl fmt::Display for PostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MailboxFull => write!(f, "a shard is behind by {MAILBOX_POSTS_MAX} posts"),
            Self::Congested => f.write_str("a subscriber's queue is high, and its policy is to pause producers"),
        }
    }
}

impl std::error::Error for PostError {}

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
    /// A mailbox is full: the subscribers of that shard do not get it, the others do. Or the topic is congested.
    pub fn publish<'a>(&self, topic: &str, message: impl Into<Message<'a>>) -> Result<(), PostError> {
        self.publish_keyed(topic, 0, &Prepared::new(message))
    }

    /// Like [`Handle::publish`], for a message that is encoded already.
    pub fn publish_prepared(&self, topic: &str, message: &Prepared) -> Result<(), PostError> {
        self.publish_keyed(topic, 0, message)
    }

    /// Like [`Handle::publish_prepared`]; where a session's policy is
    /// [`Policy::Conflate`](super::Policy::Conflate), the message takes the place of one of this topic with the same key.
    pub fn publish_keyed(&self, topic: &str, key: u64, message: &Prepared) -> Result<(), PostError> {
        if self.mailboxes.0.iter().any(|mailbox| mailbox.is_congested(topic)) {
            return Err(PostError::Congested);
        }
        let topic: Arc<str> = topic.into();
        let mut verdict = Ok(());
        for mailbox in &*self.mailboxes.0 {
            let post = Post::Publish { topic: topic.clone(), message: message.clone(), key, origin: None };
            verdict = verdict.and(Self::post(mailbox, post));
        }
        verdict
    }

    /// Sends a message to one session.
    pub fn send<'a>(&self, session: SessionKey, message: impl Into<Message<'a>>) -> Result<(), PostError> {
        let message = Prepared::new(message);
        self.post_to(session, Post::Send { session: session.key, message, key: None, origin: None })
    }

    /// Closes one session with this code and reason.
    pub fn close(&self, session: SessionKey, code: CloseCode, reason: &str) -> Result<(), PostError> {
        let post = Post::Close { session: session.key, code, reason: reason.into() };
        self.post_to(session, post)
    }

    /// Ends the server in order: no more connections, close frames with 1001 to all, and the end of each shard once its
    /// sessions are gone, or `deadline` from now.
    pub fn shutdown(&self, deadline: Duration) {
        self.drain(&Drain { deadline, ..Drain::default() });
    }

    /// Ends the server in order, with a say in how. What was accepted before is sent before. A later call may bring the
    /// end nearer, never put it off.
    pub fn drain(&self, drain: &Drain) {
        for mailbox in &*self.mailboxes.0 {
            mailbox.tell_drain(drain);
        }
    }

    /// Whether the server was told to end.
    pub fn is_draining(&self) -> bool {
        self.mailboxes.0.iter().any(Mailbox::has_drain) || self.stats().draining > 0
    }

    /// Posts that lie in mailboxes of shards that have not ended.
    #[cfg(feature = "simulation")]
    pub fn post_count(&self) -> usize {
        let open = self.mailboxes.0.iter().filter(|mailbox| !mailbox.ended.load(Ordering::SeqCst));
        open.map(Mailbox::post_count).sum()
    }

    /// What all shards have counted, together.
    pub fn stats(&self) -> Stats {
        self.shard_stats().fold(Stats::default(), |mut all, shard| {
            all += shard;
            all
        })
    }

    /// What each shard has counted, in the order of their numbers. Reading stops nobody.
    pub fn shard_stats(&self) -> impl Iterator<Item = Stats> + '_ {
        self.mailboxes.0.iter().map(|mailbox| mailbox.counters.read())
    }

    /// All topics that have subscribers, and how many, on all shards; patterns are listed as what they are. In no
    /// order. Waits for the shards' answers, at most `timeout` from one to the next, so it must not be called from a
    /// handler.
    ///
    /// Cost: each shard walks over its topics.
    ///
    /// # Errors
    /// A mailbox is full.
    pub fn topics(&self, timeout: Duration) -> Result<Vec<(Arc<str>, usize)>, PostError> {
        let (answer, answers) = channel();
        for mailbox in &*self.mailboxes.0 {
            Self::post(mailbox, Post::ListTopics { answer: answer.clone() })?;
        }
        drop(answer);
        let mut all: HashMap<Arc<str>, usize> = HashMap::new();
        // A shard that has ended has no topics; its answer is missing, and the others' are complete.
        while let Ok(topics) = answers.recv_timeout(timeout) {
            for (name, count) in topics {
                *all.entry(name).or_default() += count;
            }
        }
        Ok(all.into_iter().collect())
    }

    /// A key of another server may name a shard that this one has not: nobody is there.
    fn post_to(&self, session: SessionKey, post: Post) -> Result<(), PostError> {
        self.mailboxes.0.get(usize::from(session.shard)).map_or(Ok(()), |mailbox| Self::post(mailbox, post))
    }

    fn post(mailbox: &Mailbox, post: Post) -> Result<(), PostError> {
        let put = mailbox.put(post);
        mailbox.ring();
        put.map_err(|_| PostError::MailboxFull)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Driver, Uring, UringConfig};

    #[test]
    fn a_topic_is_congested_until_the_last_consumer_takes_more() {
        let driver = Uring::new(UringConfig::default()).expect("io_uring is allowed here");
        let mailboxes = Mailboxes::new([driver.waker()]);
        let handle = Handle::new(mailboxes.clone());
        mailboxes.of(0).congest("news".into());
        mailboxes.of(0).congest("news".into());
        assert_eq!(handle.publish("news", "x"), Err(PostError::Congested));
        assert_eq!(handle.publish("sports", "x"), Ok(()));
        mailboxes.of(0).relieve("news");
        assert_eq!(handle.publish("news", "x"), Err(PostError::Congested));
        mailboxes.of(0).relieve("news");
        assert_eq!(handle.publish("news", "x"), Ok(()));
    }

    #[test]
    fn a_mailbox_is_full_of_bytes_too_and_takes_a_longer_message_alone() {
        let driver = Uring::new(UringConfig::default()).expect("io_uring is allowed here");
        let mailboxes = Mailboxes::new([driver.waker()]);
        let (mailbox, handle) = (mailboxes.of(0), Handle::new(mailboxes.clone()));
        let longer = vec![0; MAILBOX_BYTES_MAX + 1];
        for _ in 0..2 {
            assert_eq!(handle.publish("news", &longer), Ok(()));
            assert_eq!(handle.publish("news", "x"), Err(PostError::MailboxFull));
            // What has no bytes of anybody's is not kept out.
            let session = SessionKey { shard: 0, key: Key::new(0, 0) };
            assert_eq!(handle.close(session, CloseCode::NORMAL, ""), Ok(()));
            assert!(mailbox.take().is_some() && mailbox.take().is_some() && mailbox.take().is_none());
        }
        let eighth = vec![0; MAILBOX_BYTES_MAX / 8];
        assert_eq!((0..9).filter(|_| handle.publish("news", &eighth).is_ok()).count(), 7, "and the frames' headers");
    }

    #[test]
    fn an_outbox_is_high_by_bytes_and_keeps_what_a_mailbox_refuses() {
        let driver = Uring::new(UringConfig::default()).expect("io_uring is allowed here");
        let mailboxes = Mailboxes::new([driver.waker()]);
        let message = Prepared::new(&vec![0; OUTBOX_BYTES_LOW]);
        let mut outbox = Outbox::default();
        let count = MAILBOX_BYTES_MAX / OUTBOX_BYTES_LOW + 3;
        for _ in 0..count {
            assert!(outbox.push(Post::Publish {
                topic: "news".into(),
                message: message.clone(),
                key: 0,
                origin: None
            }));
        }
        outbox.deliver_to(mailboxes.of(0));
        assert_eq!((outbox.posts.len(), outbox.is_high(), outbox.is_low()), (4, true, false));
        assert!(mailboxes.of(0).take().is_some());
        outbox.deliver_to(mailboxes.of(0));
        assert_eq!((outbox.posts.len(), outbox.is_high()), (3, false));
        while mailboxes.of(0).take().is_some() {}
        outbox.deliver_to(mailboxes.of(0));
        assert!(outbox.is_empty() && outbox.is_low() && outbox.bytes == 0);
    }

    #[test]
    fn a_full_mailbox_says_so_and_still_takes_the_end() {
        let driver = Uring::new(UringConfig::default()).expect("io_uring is allowed here");
        let mailboxes = Mailboxes::new([driver.waker()]);
        let handle = Handle::new(mailboxes.clone());
        for _ in 0..MAILBOX_POSTS_MAX {
            assert_eq!(handle.publish("news", "x"), Ok(()));
        }
        assert_eq!(handle.publish("news", "x"), Err(PostError::MailboxFull));
        handle.shutdown(Duration::from_secs(3));
        assert!(!mailboxes.of(0).fall_asleep());
        assert!(handle.is_draining());
        // Told again before it has seen that: what comes sooner counts, and the words of the later call.
        let later = Drain { window: Duration::from_secs(1), deadline: Duration::from_secs(9), ..Drain::default() };
        handle.drain(&Drain { code: CloseCode::SERVICE_RESTART, ..later });
        let drain = mailboxes.of(0).take_drain().expect("it was told");
        assert_eq!((drain.window, drain.deadline), (Duration::ZERO, Duration::from_secs(3)));
        assert_eq!(drain.code, CloseCode::SERVICE_RESTART);
        assert!(handle.is_draining(), "at no time does it go back");
        assert_eq!(mailboxes.of(0).take_drain(), None);
        let foreign = SessionKey { shard: 9, key: Key::new(0, 0) };
        assert_eq!(handle.send(foreign, "x"), Ok(()));
        mailboxes.end(0);
        assert_eq!(handle.publish("news", "x"), Ok(()));
    }
}
