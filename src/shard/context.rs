//! What a handler is given: its shard's world, and the session it is called for.

use super::core::{Core, SendOutcome};
use super::mailbox::{Handle, Post, SessionKey};
use super::options::SessionOptions;
use super::publishing::{Publication, Published, SubscribeError};
use super::sending::{Origin, Outgoing};
use super::session::{Flags, SessionState};
use super::topic::TopicStats;
use crate::base::key::Key;
use crate::protocol::close::CloseCode;
use crate::protocol::message::{Message, MessageKind, Prepared};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// A shard's world, for the time of one call.
pub struct Context<'a, T> {
    core: &'a mut Core<T>,
    /// Whom the handler is called for: what it publishes and sends is this one's doing.
    caller: Option<Key>,
}

impl<'a, T> Context<'a, T> {
    pub(super) const fn new(core: &'a mut Core<T>, caller: Option<Key>) -> Self {
        Self { core, caller }
    }

    fn origin(&self) -> Origin {
        self.caller.map(|key| self.core.global(key))
    }

    /// The shard's number, from 0.
    pub const fn shard(&self) -> usize {
        self.core.shard as usize
    }

    /// Time since the shard's start: monotonic, read once a turn.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.core.time.as_nanos())
    }

    /// The address of the peer that the handler is called for: always in [`Handler::on_upgrade`] and
    /// [`Handler::on_request`], later if [`SessionOptions::keeps_peer_addr`] says so. `None` where it was not asked for
    /// ([`ShardSettings::peer_addresses`](super::ShardSettings::peer_addresses)), or the kernel does not tell (with io_uring
    /// before Linux 6.7).
    ///
    /// [`Handler::on_upgrade`]: super::Handler::on_upgrade
    /// [`Handler::on_request`]: super::Handler::on_request
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        let caller = self.caller?;
        self.core.addresses.arrival(caller).or_else(|| self.core.sessions.get(caller)?.rare()?.peer)
    }

    // Publishing

    /// Sends a message to every subscriber of a topic, on every shard. Answers what became of it on this one.
    ///
    /// Cost: one encoding (none for the very message that the handler is called with, if it was gathered from several
    /// reads), one post to each other shard, one queue slot a subscriber.
    pub fn publish<'m>(&mut self, topic: &str, message: impl Into<Message<'m>>) -> Published {
        let message = self.prepare(message);
        self.publish_to(topic, &message, 0, None)
    }

    /// Like [`Context::publish`], for a message that is encoded already.
    pub fn publish_prepared(&mut self, topic: &str, message: &Prepared) -> Published {
        self.publish_to(topic, message, 0, None)
    }

    /// Like [`Context::publish_prepared`]; where a session's policy is [`Policy::Conflate`](super::Policy::Conflate), the
    /// message takes the place of one of this topic with the same key.
    pub fn publish_keyed(&mut self, topic: &str, key: u64, message: &Prepared) -> Published {
        self.publish_to(topic, message, key, None)
    }

    fn publish_to(&mut self, topic: &str, message: &Prepared, key: u64, except: Option<Key>) -> Published {
        let origin = self.origin();
        self.core.publish(&Publication { topic, message, key, origin }, except)
    }

    /// Encodes a message for many. The very message that the handler is called with is not copied, if it was gathered
    /// from several reads.
    pub fn prepare<'m>(&self, message: impl Into<Message<'m>>) -> Prepared {
        let message = message.into();
        match &self.core.lent {
            Some(lent) if lent.is_of(message) => lent.clone(),
            _ => Prepared::new(message),
        }
    }

    /// Subscribers of a topic or a pattern on this shard.
    pub fn subscriber_count(&self, topic: &str) -> usize {
        self.topic_stats(topic).map_or(0, |stats| stats.subscribers)
    }

    /// What this shard knows of a topic or a pattern; `None` if nobody here is subscribed to it.
    pub fn topic_stats(&self, topic: &str) -> Option<TopicStats<'_>> {
        self.core.topics.stats(topic)
    }

    /// All topics and patterns that have subscribers on this shard, in no order. Cost: a walk over them.
    pub fn topics(&self) -> impl Iterator<Item = TopicStats<'_>> {
        self.core.topics.iter()
    }

    // Other sessions

    /// Sends a message to a session, of this shard or another. For a session of another shard the answer is `Queued`.
    pub fn send_to<'m>(&mut self, session: SessionKey, message: impl Into<Message<'m>>) -> SendOutcome {
        self.send_message_to(session, message.into(), None)
    }

    /// Like [`Context::send_to`]; where the session's policy is [`Policy::Conflate`](super::Policy::Conflate), the message
    /// takes the place of one that waits and was sent with the same key.
    pub fn send_keyed_to<'m>(&mut self, session: SessionKey, key: u64, message: impl Into<Message<'m>>) -> SendOutcome {
        self.send_message_to(session, message.into(), Some(key))
    }

    fn send_message_to(&mut self, session: SessionKey, message: Message<'_>, key: Option<u64>) -> SendOutcome {
        let origin = self.origin();
        match self.core.local(session) {
            Some(local) => {
                let slot = key.map_or(0, |key| self.core.slot_of(None, key));
                self.core.send(local, message, slot, origin)
            }
            None => {
                let message = self.prepare(message);
                self.core.post_to(session, Post::Send { session: session.key, message, key, origin });
                self.core.work += 1;
                self.core.hold_if_behind(session.shard, origin);
                SendOutcome::Queued
            }
        }
    }

    /// Begins the closing handshake of a session, of this shard or another.
    pub fn close(&mut self, session: SessionKey, code: CloseCode, reason: &str) {
        match self.core.local(session) {
            Some(key) => {
                self.core.close_and_remember(key, code, reason);
            }
            None => {
                let post = Post::Close { session: session.key, code, reason: reason.into() };
                self.core.post_to(session, post);
            }
        }
    }

    /// The value of a session of this shard.
    pub fn data(&self, session: SessionKey) -> Option<&T> {
        self.core.sessions.get(self.core.local(session)?)?.data.as_ref()
    }

    /// The value of a session of this shard, to change.
    pub fn data_mut(&mut self, session: SessionKey) -> Option<&mut T> {
        let key = self.core.local(session)?;
        self.core.sessions.get_mut(key)?.data.as_mut()
    }

    /// What other threads talk to this server with.
    pub fn handle(&self) -> Handle {
        Handle::new(self.core.mailboxes.clone())
    }
}

/// The session that a handler is called for. It is a [`Context`] too.
pub struct Session<'a, T> {
    context: Context<'a, T>,
    key: Key,
}

impl<'a, T> Deref for Session<'a, T> {
    type Target = Context<'a, T>;
    fn deref(&self) -> &Self::Target {
        &self.context
    }
}

impl<T> DerefMut for Session<'_, T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.context
    }
}

impl<'a, T> Session<'a, T> {
    pub(super) const fn new(core: &'a mut Core<T>, key: Key) -> Self {
        Self { context: Context::new(core, Some(key)), key }
    }

    fn core(&mut self) -> &mut Core<T> {
        self.context.core
    }

    fn state(&self) -> Option<&SessionState<T>> {
        self.context.core.sessions.get(self.key)
    }

    /// This session's name for [`Context::send_to`] and [`Handle`].
    pub const fn key(&self) -> SessionKey {
        self.context.core.global(self.key)
    }

    /// The value given to [`Upgrade::accept`](super::handler::Upgrade::accept).
    pub fn data(&self) -> &T {
        let data = self.state().and_then(|state| state.data.as_ref());
        data.expect("handlers are called for sessions that have data")
    }

    /// The same, to change.
    pub fn data_mut(&mut self) -> &mut T {
        let key = self.key;
        let state = self.core().sessions.get_mut(key);
        state.and_then(|state| state.data.as_mut()).expect("handlers are called for sessions that have data")
    }

    // Sending

    /// Sends a message. It leaves at the turn's end, with whatever else this session sends by then.
    ///
    /// Cost: one copy of the payload, no system call; an allocation if a send is in flight.
    #[inline]
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> SendOutcome {
        let (key, origin) = (self.key, Some(self.key()));
        self.core().send(key, message.into(), 0, origin)
    }

    /// Like [`Session::send`]; with [`Policy::Conflate`](super::Policy::Conflate), the message takes the place of one that
    /// waits and was sent with the same key.
    pub fn send_keyed<'m>(&mut self, key: u64, message: impl Into<Message<'m>>) -> SendOutcome {
        let session = self.key();
        self.context.send_keyed_to(session, key, message)
    }

    /// Sends a message that is encoded already. Cost: a reference; a copy if it is small and not alone.
    pub fn send_prepared(&mut self, message: &Prepared) -> SendOutcome {
        let (key, origin) = (self.key, self.context.origin());
        self.core().send_frame(key, &Outgoing::of_one(message.frame(), 0), origin)
    }

    /// Begins a message that is sent in fragments (RFC 6455 §5.4): this is the first. Whole messages sent meanwhile wait
    /// for its last one; control frames do not.
    ///
    /// Fragments are never dropped by a policy. `Dropped` means that the queue is full and nothing was taken: offer the
    /// same fragment again in [`Handler::on_drain`](super::Handler::on_drain), and better wait for that as soon as
    /// [`Session::buffered_bytes`] is high. `Closed` also if a message is under way already.
    pub fn send_first(&mut self, kind: MessageKind, payload: &[u8]) -> SendOutcome {
        let key = self.key;
        self.core().send_first(key, kind, payload)
    }

    /// Sends the next fragment of the message under way; `last` ends it. All fragments of a text together must be UTF-8.
    /// `Closed` also if no message is under way.
    pub fn send_next(&mut self, payload: &[u8], last: bool) -> SendOutcome {
        let key = self.key;
        self.core().send_next(key, payload, last)
    }

    /// Sends a ping with at most 125 bytes of payload. `Dropped` if it is longer, or if four wait already because the peer
    /// takes nothing.
    pub fn ping(&mut self, payload: &[u8]) -> SendOutcome {
        let key = self.key;
        self.core().ping(key, payload)
    }

    /// Begins the closing handshake. No message is sent or received after it. A reason is cut to 123 bytes.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        let key = self.key;
        self.core().close_and_remember(key, code, reason);
    }

    /// Ends the session at the turn's end, without a close frame.
    pub fn terminate(&mut self) {
        let key = self.key;
        self.core().terminate(key);
    }

    // Topics

    /// Sends a message to every other subscriber of a topic, on every shard.
    pub fn publish_except_self<'m>(&mut self, topic: &str, message: impl Into<Message<'m>>) -> Published {
        let (key, message) = (self.key, self.prepare(message));
        self.context.publish_to(topic, &message, 0, Some(key))
    }

    /// Subscribes to a topic, or to a pattern of topics if its options allow wildcards: levels are separated by `/`, `+`
    /// stands for one level, `#` at the end for any number of them (MQTT 3.1.1 §4.7). `Ok(false)` if it was subscribed
    /// already. A message that several subscriptions match comes once.
    ///
    /// Cost: a keyed hash of the name and a walk over this session's subscriptions; 20 bytes, 100 for the first.
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub fn subscribe(&mut self, topic: &str) -> Result<bool, SubscribeError> {
        let key = self.key;
        self.core().subscribe(key, topic)
    }

    /// Ends a subscription. `false` if there was none.
    pub fn unsubscribe(&mut self, topic: &str) -> bool {
        let key = self.key;
        self.core().unsubscribe(key, topic)
    }

    /// Whether this session is subscribed to a topic, or to this very pattern.
    pub fn subscribed(&self, topic: &str) -> bool {
        self.context.core.subscribed(self.key, topic)
    }

    // Its state

    /// Stops receiving. What the read at hand has brought still comes, but for bytes that would be too much work for this turn: they
    /// wait until it receives again. While nothing is received, neither the end of the
    /// peer nor its silence is noticed; `idle_timeout` and `lifetime_max` run on.
    pub fn pause_receiving(&mut self) {
        let key = self.key;
        self.core().hold_back(key, Flags::PAUSED, true);
    }

    /// Receives again.
    pub fn resume_receiving(&mut self) {
        let key = self.key;
        self.core().hold_back(key, Flags::PAUSED, false);
    }

    /// Bytes accepted for sending and not yet with the kernel, but for messages that wait for the last fragment of one
    /// under way.
    pub fn buffered_bytes(&self) -> usize {
        self.state().map_or(0, SessionState::buffered_bytes)
    }

    /// Messages dropped for this session so far, by whichever policy.
    pub fn dropped_count(&self) -> u64 {
        self.state().and_then(SessionState::rare).map_or(0, |rare| rare.dropped)
    }

    /// The last round trip of a ping of the engine's (`ping_interval`), the time in our own turn included.
    pub fn round_trip(&self) -> Option<Duration> {
        self.state().and_then(SessionState::round_trip)
    }

    /// What this session may do.
    pub fn options(&self) -> &SessionOptions {
        self.context.core.options.get(self.state().map_or(0, |state| state.options))
    }
}
