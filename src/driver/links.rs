//! The links of the epoll driver: who sits in which slot, and under which generation.

use super::Link;
use super::batch::Batch;
use super::poller::Interest;
use crate::base::key::Key;
use socket2::Socket;

/// Slots, as many as were ever in use at one time.
pub(super) struct Links {
    slots: Vec<Slot>,
    /// Slots that may have their next tenant.
    vacant: Vec<u32>,
    slots_max: usize,
}

#[derive(Default)]
struct Slot {
    /// None while nobody is here, and while the end of the last one has not been told.
    state: Option<LinkState>,
    generation: u32,
}

const _: () = assert!(size_of::<Slot>() == 24);

/// What the driver knows of a link that is open.
pub(super) struct LinkState {
    pub(super) socket: Socket,
    /// What has not left yet of the batch in flight.
    pub(super) sending: Option<Box<Batch>>,
    pub(super) outgoing: Outgoing,
    pub(super) receive_wanted: bool,
    /// A receive found no buffer, and the link waits in line for one.
    pub(super) starved: bool,
    /// What epoll watches it for. It may be more than is wanted, until that is noticed.
    pub(super) watched: Interest,
}

/// What is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    Nothing,
    /// The connection does not stand yet.
    Connecting,
    /// A batch, until its end has been told.
    Batch,
}

impl LinkState {
    pub(super) const fn new(socket: Socket, outgoing: Outgoing, watched: Interest) -> Self {
        Self { socket, sending: None, outgoing, receive_wanted: false, starved: false, watched }
    }

    /// What epoll should watch it for.
    pub(super) fn interest(&self) -> Interest {
        let read = self.receive_wanted && !self.starved;
        let write = self.sending.is_some() || self.outgoing == Outgoing::Connecting;
        Interest::new(read, write)
    }
}

impl Links {
    pub(super) const fn new(slots_max: usize) -> Self {
        Self { slots: Vec::new(), vacant: Vec::new(), slots_max }
    }

    pub(super) const fn has_room(&self) -> bool {
        !self.vacant.is_empty() || self.slots.len() < self.slots_max
    }

    /// A new link. There is room for it.
    pub(super) fn open(&mut self, state: LinkState) -> Link {
        debug_assert!(self.has_room());
        let index = self.vacant.pop().unwrap_or(self.slots.len() as u32);
        if index as usize == self.slots.len() {
            self.slots.push(Slot::default());
        }
        let slot = &mut self.slots[index as usize];
        slot.state = Some(state);
        Key::new(index, slot.generation)
    }

    /// A link that is open and still this tenant's.
    pub(super) fn get(&mut self, link: Link) -> Option<&mut LinkState> {
        self.slot(link)?.state.as_mut()
    }

    /// Ends a link. Its key stays its own until [`Links::vacate`].
    pub(super) fn close(&mut self, link: Link) -> Option<LinkState> {
        self.slot(link)?.state.take()
    }

    /// Lets the slot of a closed link have its next tenant.
    pub(super) fn vacate(&mut self, link: Link) {
        let slot = self.slot(link).expect("a link is vacated once");
        assert!(slot.state.is_none(), "{link:?} is vacated while it is open");
        slot.generation = link.next_tenant().generation();
        self.vacant.push(link.index() as u32);
    }

    /// Ends a link that the loop has never heard of: nothing is told of its end.
    pub(super) fn discard(&mut self, link: Link) {
        self.close(link);
        self.vacate(link);
    }

    fn slot(&mut self, link: Link) -> Option<&mut Slot> {
        self.slots.get_mut(link.index()).filter(|slot| slot.generation == link.generation())
    }
}
