//! What is known of kernel settings: the one table behind the judgement, the files of `sysctl/` and its README.
//!
//! Sources: the kernel's documentation (`networking/ip-sysctl`, `networking/nf_conntrack-sysctl`,
//! `admin-guide/sysctl/{fs,net}`) and, where that says less, its sources (`net/ipv4/tcp_input.c`, `fs/file_table.c`).
//! A key stands here only if leaving it alone can cost connections; what is left alone on purpose, and why, stands in
//! `sysctl/README.md`.

/// Numbers of connections that there are files for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    TenThousand,
    HundredThousand,
    Million,
}

impl Class {
    pub(super) const ALL: [Self; 3] = [Self::TenThousand, Self::HundredThousand, Self::Million];

    /// As files and columns name it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::TenThousand => "10k",
            Self::HundredThousand => "100k",
            Self::Million => "1m",
        }
    }

    pub(super) const fn connections(self) -> u64 {
        match self {
            Self::TenThousand => 10_000,
            Self::HundredThousand => 100_000,
            Self::Million => 1_000_000,
        }
    }

    /// The smallest class that holds so many, or the largest.
    pub(super) fn holding(connections: u64) -> Self {
        Self::ALL.into_iter().find(|class| class.connections() >= connections).unwrap_or(Self::Million)
    }
}

/// What a key bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bounds {
    /// How many connections may come at once. With less they come later, and are held all the same.
    Burst,
    /// How many there may be: each takes one.
    Held,
}

/// A kernel setting.
#[derive(Debug)]
pub(super) struct Sysctl {
    pub(super) key: &'static str,
    pub(super) bounds: Bounds,
    /// What it is set to, by [`Class::ALL`]; `None` where its default does.
    pub(super) wanted: [Option<u64>; 3],
    /// Why a host may not have it; such a key is passed over where there is none.
    pub(super) absent: Option<&'static str>,
    pub(super) does: &'static str,
    pub(super) costs: &'static str,
    pub(super) without: &'static str,
}

pub(super) const SOMAXCONN: &str = "net.core.somaxconn";
pub(super) const SYN_BACKLOG: &str = "net.ipv4.tcp_max_syn_backlog";
pub(super) const CONNTRACK_MAX: &str = "net.netfilter.nf_conntrack_max";
pub(super) const FILE_MAX: &str = "fs.file-max";

/// The table.
pub(super) const SYSCTLS: [Sysctl; 4] = [
    Sysctl {
        key: SOMAXCONN,
        bounds: Bounds::Burst,
        wanted: [Some(4096); 3],
        absent: None,
        does: "longest queue of connections that wait to be accepted. The server asks for 4096 on each shard's \
               listener; the kernel cuts that to this key. 4096 is the kernel's default since 5.4",
        costs: "memory for connections that wait",
        without: "where it is lower, a burst of connections overflows the queue, and clients try again after a second \
                  or more",
    },
    Sysctl {
        key: SYN_BACKLOG,
        bounds: Bounds::Burst,
        wanted: [Some(4096); 3],
        absent: None,
        does: "most half-open connections of a listener where SYN cookies are off (`net.ipv4.tcp_syncookies` 0). Where \
               they are on, as by default, nobody looks at it: the listener's queue bounds them, and beyond it the \
               kernel sends cookies. The default grows with the machine's memory, from 128",
        costs: "about 304 bytes for each half-open connection",
        without: "with cookies off, the kernel drops new connections of a burst from three quarters of it on",
    },
    Sysctl {
        key: CONNTRACK_MAX,
        bounds: Bounds::Held,
        wanted: [None, Some(262_144), Some(1_310_720)],
        absent: Some("a host without netfilter's connection tracking has no such key"),
        does: "most connections that netfilter tracks, where it is loaded and a rule asks for it; every connection to \
               the server is one entry. The default follows the machine's memory and ends at 262144",
        costs: "kernel memory for each entry in use; the hash table does not grow with it",
        without: "netfilter drops packets of new connections once the table is full",
    },
    Sysctl {
        key: FILE_MAX,
        bounds: Bounds::Held,
        wanted: [None, None, Some(4_194_304)],
        absent: None,
        does: "most open files of the whole system. Direct descriptors count here, although they do not count against \
               RLIMIT_NOFILE; a client on the same host needs as many again. A process with CAP_SYS_ADMIN is not held \
               to it",
        costs: "nothing by itself; it is what stops a program that leaks descriptors",
        without: "accepting fails with ENFILE; the server then rests 100 ms and tries again. The default follows the \
                  machine's memory, one file for 10 KiB; systemd (240) sets it to no limit",
    },
];

impl Sysctl {
    /// What to set it to for so many connections, `others` being what takes of it besides: the table's value if that
    /// does, else as many and a quarter more.
    pub(super) fn value_for(&self, connections: u64, others: u64) -> u64 {
        let class = Class::holding(connections) as usize;
        let tabled = self.wanted[class..].iter().flatten().next().copied().unwrap_or(0);
        let needed = match self.bounds {
            Bounds::Burst => 0,
            Bounds::Held => connections.saturating_add(others),
        };
        if tabled >= needed { tabled } else { (needed + needed / 4).next_multiple_of(65_536) }
    }

    /// What the table wants for a class.
    pub(super) const fn wanted_for(&self, class: Class) -> Option<u64> {
        self.wanted[class as usize]
    }
}

/// Kernel memory of one idle connection, bytes. `ringload idle` with 100 000 and with 1 000 000 connections measured
/// 9.5 KiB for both ends of a connection over the loopback (`benches/record/`); half of that is taken for the server's
/// end, which was not measured by itself.
pub(super) const KERNEL_BYTES: u64 = 9_728 / 2;
/// What the server keeps of it: 135 to 163 bytes were measured.
pub(super) const USER_BYTES: u64 = 163;
/// Both, rounded up to whole KiB.
pub(super) const CONNECTION_BYTES: u64 = (KERNEL_BYTES + USER_BYTES).next_multiple_of(1024);
/// One part in so many of the memory is left for bytes in flight, and for everybody else.
pub(super) const MEMORY_SPARED: u64 = 8;

/// Descriptors of the process itself: standard ones, signals, the log, and some to spare.
pub(super) const PROCESS_DESCRIPTORS: u64 = 16;
/// And of each shard: its listener, its ring or epoll, its bell, and one to spare.
pub(super) const SHARD_DESCRIPTORS: u64 = 4;
/// And of each further ring: itself and its bell.
pub(super) const RING_DESCRIPTORS: u64 = 2;
/// The kernel's longest table of direct descriptors (`IORING_MAX_FIXED_FILES`).
pub(super) const TABLE_SLOTS_MAX: u64 = 1 << 20;
/// A table as long as this: the share of a further ring in each of its connections is some 50 bytes.
pub(super) const TABLE_SLOTS_WANTED: u64 = 16_384;
