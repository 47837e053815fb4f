//! Whether ringload says the truth: its binary against servers of known behaviour that share no code with it.
//!
//! | module | shows that |
//! |---|---|
//! | `self_check` | the servers below do what the other modules take for granted |
//! | `latency` | percentiles are those of a known distribution; an open loop shows a stall that a closed one hides |
//! | `arrivals` | messages leave when they were meant to: constant, Poisson, in steps; from and to many addresses |
//! | `faults` | each wrong answer is counted once, under its own name, and fails the run |
//! | `fanout` | each wrong delivery is too; what publishers and subscribers send is what they were told to |
//! | `slow_reader` | stalled readers, and whom they hold up, are told apart |
//! | `rates` | `find-rate` finds the rate that a server really has; a ramp ends where its promise does |
//! | `connections` | `churn` and `idle` count as the server does |
//! | `rude` | servers that break off, break the rules or test them end nothing but their own connections |
//! | `outputs` | exit codes, files and signals |
//! | `refusals` | what cannot be done is said, with what to do about it |
//! | `limits` | a client that was held up says so, and a server's cost is what the system says it is |

mod answers;
mod hub;
mod program;
mod server;

mod arrivals;
mod connections;
mod fanout;
mod faults;
mod latency;
mod limits;
mod outputs;
mod rates;
mod refusals;
mod rude;
mod self_check;
mod slow_reader;
