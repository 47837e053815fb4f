//! Cores: which ones this process may run on, and a thread's place on one of them.

/// The cores this process may run on, by the kernel's numbers. Empty if the system does not say.
pub fn cores() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect()
}

/// Keeps the calling thread on one core. Answers whether the system agreed.
pub fn pin_to(core: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: core })
}
