//! What a handler is given: its shard's world, and the session it is called for.

use super::core::{Core, SendOutcome, SubscribeError};
use super::mailbox::{Handle, Post, SessionKey};
use crate::base::key::Key;
use crate::protocol::close::{CloseCode, CloseFrame};
use crate::protocol::message::{Message, Prepared};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// A shard's world, for the time of one call.
pub struct Context<'a, T> {
    core: &'a mut Core<T>,
}

impl<'a, T> Context<'a, T> {
    pub(super) const fn new(core: &'a mut Core<T>) -> Self {
        Self { core }
    }

    /// The shard's number, from 0.
    pub const fn shard(&self) -> usize {
        self.core.shard as usize
    }

    /// Time since the shard's start: monotonic, read once a turn.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.core.time.as_nanos())
    }

    /// Sends a message to every subscriber of a topic, on every shard. Answers how many of this shard took it.
    ///
    /// Cost: one encoding, one post to each other shard, one queue slot a subscriber.
    pub fn publish<'m>(&mut self, topic: &str, message: impl Into<Message<'m>>) -> usize {
        self.publish_prepared(topic, &Prepared::new(message))
    }

    /// Like [`Context::publish`], for a message that is encoded already.
    pub fn publish_prepared(&mut self, topic: &str, message: &Prepared) -> usize {
        self.core.publish(topic, message, None)
    }

    /// Subscribers of a topic on this shard.
    pub fn subscriber_count(&self, topic: &str) -> usize {
        self.core.topics.subscribers(topic).len()
    }

    /// Sends a message to a session, of this shard or another. For a session of another shard the answer is `Queued`.
    pub fn send_to<'m>(&mut self, session: SessionKey, message: impl Into<Message<'m>>) -> SendOutcome {
        match self.core.local(session) {
            Some(key) => self.core.send(key, message.into()),
            None => {
                let post = Post::Send { session: session.key, message: Prepared::new(message) };
                self.core.post_to(session, post);
                SendOutcome::Queued
            }
        }
    }

    /// Begins the closing handshake of a session, of this shard or another.
    pub fn close(&mut self, session: SessionKey, code: CloseCode, reason: &str) {
        match self.core.local(session) {
            Some(key) => {
                self.core.close_with(key, code, reason);
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
        Self { context: Context::new(core), key }
    }

    fn core(&mut self) -> &mut Core<T> {
        self.context.core
    }

    /// This session's name for [`Context::send_to`] and [`Handle`].
    pub const fn key(&self) -> SessionKey {
        self.context.core.global(self.key)
    }

    /// The value given to [`Upgrade::accept`](super::handler::Upgrade::accept).
    pub fn data(&self) -> &T {
        let state = self.context.core.sessions.get(self.key);
        state.and_then(|state| state.data.as_ref()).expect("handlers are called for sessions that have data")
    }

    /// The same, to change.
    pub fn data_mut(&mut self) -> &mut T {
        let key = self.key;
        let state = self.core().sessions.get_mut(key);
        state.and_then(|state| state.data.as_mut()).expect("handlers are called for sessions that have data")
    }

    /// Sends a message. It leaves at the turn's end, with whatever else this session sends by then.
    ///
    /// Cost: one copy of the payload, no system call.
    #[inline]
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> SendOutcome {
        let key = self.key;
        self.core().send(key, message.into())
    }

    /// Sends a message that is encoded already. Cost: a reference; a copy if it is small and not alone.
    pub fn send_prepared(&mut self, message: &Prepared) -> SendOutcome {
        let key = self.key;
        self.core().send_prepared(key, message)
    }

    /// Sends a ping with at most 125 bytes of payload; with more it is dropped.
    pub fn ping(&mut self, payload: &[u8]) -> SendOutcome {
        let key = self.key;
        self.core().ping(key, payload)
    }

    /// Begins the closing handshake. No message is sent or received after it. A reason is cut to 123 bytes.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        let key = self.key;
        self.core().close(key, Some(CloseFrame { code, reason }));
    }

    /// Ends the session at the turn's end, without a close frame.
    pub fn terminate(&mut self) {
        let key = self.key;
        self.core().terminate(key);
    }

    /// Sends a message to every other subscriber of a topic, on every shard.
    pub fn publish_except_self<'m>(&mut self, topic: &str, message: impl Into<Message<'m>>) -> usize {
        let key = self.key;
        self.core().publish(topic, &Prepared::new(message), Some(key))
    }

    /// Subscribes to a topic. `Ok(false)` if it was subscribed already.
    ///
    /// Cost: a keyed hash of the name and a walk over this session's subscriptions; about 20 bytes.
    pub fn subscribe(&mut self, topic: &str) -> Result<bool, SubscribeError> {
        let key = self.key;
        self.core().subscribe(key, topic)
    }

    /// Ends a subscription. `false` if there was none.
    pub fn unsubscribe(&mut self, topic: &str) -> bool {
        let key = self.key;
        self.core().unsubscribe(key, topic)
    }

    /// Whether this session is subscribed to a topic.
    pub fn subscribed(&self, topic: &str) -> bool {
        self.context.core.subscribed(self.key, topic)
    }

    /// Bytes accepted for sending and not yet with the kernel.
    pub fn buffered_bytes(&self) -> usize {
        self.context.core.sessions.get(self.key).map_or(0, super::session::SessionState::buffered_bytes)
    }
}
