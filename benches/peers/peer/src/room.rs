//! The connections that get what any of them sends: a list of their queues, none of which has a bound.
//!
//! A message is cloned for each member; with `Bytes` in it, all clones share one payload.

use crate::BATCH_MAX;
use slab::Slab;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A handle; clones mean the same room.
pub struct Room<M>(Arc<Mutex<Slab<UnboundedSender<M>>>>);

impl<M> Clone for Room<M> {
    fn clone(&self) -> Self {
        Room(Arc::clone(&self.0))
    }
}

impl<M> Default for Room<M> {
    fn default() -> Self {
        Room(Arc::default())
    }
}

impl<M: Clone> Room<M> {
    /// A place in the room, and what reaches this place alone.
    pub fn join(&self) -> (Member<M>, UnboundedSender<M>) {
        let (sender, queue) = unbounded_channel();
        let key = self.senders().insert(sender.clone());
        (Member { room: self.clone(), key, queue }, sender)
    }

    pub fn publish(&self, message: &M) {
        for (_, sender) in self.senders().iter() {
            // One whose queue is gone is about to leave.
            let _ = sender.send(message.clone());
        }
    }
}

impl<M> Room<M> {
    // The lock is never waited for: there is one thread. It is there because tasks are `Send`.
    fn senders(&self) -> MutexGuard<'_, Slab<UnboundedSender<M>>> {
        self.0.lock().expect("nobody panics while the list is locked")
    }
}

/// A place in the room; dropped, it is left.
pub struct Member<M> {
    room: Room<M>,
    key: usize,
    queue: UnboundedReceiver<M>,
}

impl<M> Member<M> {
    /// Waits for messages, and takes all that there are, up to [`BATCH_MAX`]. Dropped before it is ready, it has taken
    /// none.
    pub async fn receive(&mut self, batch: &mut Vec<M>) {
        self.queue.recv_many(batch, BATCH_MAX).await;
    }
}

impl<M> Drop for Member<M> {
    fn drop(&mut self) {
        self.room.senders().remove(self.key);
    }
}
