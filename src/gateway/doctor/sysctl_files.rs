//! The table of knowledge as `sysctl/` has it: a file for each class, and the table of its README. A test holds what is
//! committed to this (`tests/gateway/doctor.rs`).

use super::knowledge::{Class, SYSCTLS};
use super::text::grouped;
use std::fmt::Write;

/// `sysctl/CLASS.conf`.
pub(super) fn file(class: Class) -> String {
    let mut file = format!(
        "# For {} connections. Written by `ringwave doctor --sysctl {}`; README.md explains each key.\n\
         # Not measured yet.\n",
        grouped(class.connections()),
        class.name()
    );
    for sysctl in &SYSCTLS {
        let Some(value) = sysctl.wanted_for(class) else { continue };
        let mut dash = "";
        if let Some(absent) = sysctl.absent {
            let (first, rest) = absent.split_at(1);
            // To a string it is always written.
            let _ = writeln!(file, "# {}{rest}: the dash lets that pass.", first.to_uppercase());
            dash = "-";
        }
        let _ = writeln!(file, "{dash}{} = {value}", sysctl.key);
    }
    file
}

/// The table of `sysctl/README.md`.
pub(super) fn table() -> String {
    let mut table = "| key | 10k | 100k | 1m | what it does | what it costs | without it |\n\
                     |---|---|---|---|---|---|---|\n"
        .to_owned();
    for sysctl in &SYSCTLS {
        let _ = write!(table, "| `{}` |", sysctl.key);
        for class in Class::ALL {
            let value = sysctl.wanted_for(class).map_or_else(String::new, |value| format!(" {value}"));
            let _ = write!(table, "{value} |");
        }
        let _ = writeln!(table, " {} | {} | {} |", sysctl.does, sysctl.costs, sysctl.without);
    }
    table
}
