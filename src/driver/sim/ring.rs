//! The simulated kernel's rings as the driver holds them. What becomes of submissions stands in `world`.

use super::world::World;
use crate::base::clock::Time;
use crate::driver::buf_ring::Pools;
use crate::driver::ring::{Kernel, Ring, RingCompletion, RingConfig, Submission};
use crate::driver::token::Token;
use crate::driver::waker::Waker;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// The kernel of one simulated host.
pub struct SimKernel {
    world: Rc<RefCell<World>>,
    host: usize,
}

impl SimKernel {
    pub(super) const fn new(world: Rc<RefCell<World>>, host: usize) -> Self {
        Self { world, host }
    }
}

impl Kernel for SimKernel {
    type Ring = SimRing;

    fn set_up(&self, config: &RingConfig, signalled: bool) -> io::Result<SimRing> {
        let pools = Pools::new(config.standard, config.bulk)?;
        let signal = signalled.then(Waker::simulated);
        let ring = self.world.borrow_mut().add_ring(self.host, config.slots, signal.clone())?;
        Ok(SimRing { world: self.world.clone(), ring, pools, signal })
    }

    fn waker(&self) -> io::Result<Waker> {
        Ok(Waker::simulated())
    }

    fn now(&self) -> Time {
        Time::from_nanos(self.world.borrow().now())
    }

    fn table_slots_max(&self) -> u32 {
        self.world.borrow().table_slots(self.host)
    }
}

/// A simulated ring. Like a real one that defers its task work, it moves bytes only while it is entered.
pub(in crate::driver) struct SimRing {
    world: Rc<RefCell<World>>,
    ring: usize,
    pools: Pools,
    signal: Option<Waker>,
}

impl Ring for SimRing {
    fn try_push(&mut self, submission: &Submission<'_>, token: Token) -> bool {
        self.world.borrow_mut().push(self.ring, submission, token)
    }

    fn submit(&mut self) -> io::Result<()> {
        self.world.borrow_mut().enter(self.ring, &mut self.pools);
        Ok(())
    }

    fn submit_if_needed(&mut self) -> io::Result<()> {
        let needed = self.world.borrow_mut().wants_enter(self.ring);
        if needed { self.submit() } else { Ok(()) }
    }

    fn submit_and_wait(&mut self, want: usize, timeout: Option<Duration>) -> io::Result<()> {
        let mut world = self.world.borrow_mut();
        world.enter(self.ring, &mut self.pools);
        world.begin_wait(self.ring, want, timeout);
        Ok(())
    }

    fn has_completions(&mut self) -> bool {
        self.world.borrow().has_completions(self.ring)
    }

    fn has_submissions(&mut self) -> bool {
        self.world.borrow().has_submissions(self.ring)
    }

    fn reap(&mut self, mut each: impl FnMut(RingCompletion)) {
        while let Some(completion) = self.world.borrow_mut().reap(self.ring) {
            each(completion);
        }
    }

    fn limit_slots(&mut self, end: u32) -> io::Result<()> {
        self.world.borrow_mut().limit_slots(self.ring, end);
        Ok(())
    }

    fn pools(&mut self) -> &mut Pools {
        &mut self.pools
    }

    fn signal(&self) -> Option<&Waker> {
        self.signal.as_ref()
    }
}

impl Drop for SimRing {
    fn drop(&mut self) {
        self.world.borrow_mut().end_ring(self.ring);
    }
}
