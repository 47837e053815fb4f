//! How quantities are written for people: three significant digits, and the unit that needs the fewest.
//!
//! A no-break space keeps a number and its unit together, and thousands. What is not a finite number is written as
//! [`NOTHING`], like what was not measured.

/// Between what no line break may part.
pub(crate) const NO_BREAK: char = '\u{a0}';
/// Stands where nothing was measured.
pub(crate) const NOTHING: &str = "–";

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// In nanoseconds.
    Duration,
    Bytes,
    /// Things, or things a second.
    Count,
    /// Cores, shares of a core, ratios.
    Ratio,
    /// 0 or 1.
    Flag,
}

impl Unit {
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Duration => duration(value),
            Self::Bytes => bytes(value),
            Self::Count => rate(value),
            Self::Ratio | Self::Flag => significant(value),
        }
    }
}

/// Of nanoseconds: `87.1 µs`, `1.23 ms`.
pub(crate) fn duration(nanos: f64) -> String {
    scaled(nanos, &[(1e3, "ns"), (1e3, "µs"), (1e3, "ms"), (f64::INFINITY, "s")])
}

/// `12.3 MiB`.
pub(crate) fn bytes(bytes: f64) -> String {
    scaled(bytes, &[(1024.0, "B"), (1024.0, "KiB"), (1024.0, "MiB"), (1024.0, "GiB"), (f64::INFINITY, "TiB")])
}

/// Divides until the value is below the size of a unit, which is given with the unit's name.
fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    if !value.is_finite() {
        return NOTHING.to_owned();
    }
    let mut value = value;
    for (size, name) in units {
        // What would be rounded up to the next unit is that unit.
        if value.abs() < size - 0.5 {
            return format!("{}{NO_BREAK}{name}", significant(value));
        }
        value /= size;
    }
    unreachable!("the last unit has no end")
}

/// Things a second: three significant digits at least, and all before the point.
pub(crate) fn rate(value: f64) -> String {
    if value.is_finite() && value.abs() >= 999.5 { grouped(&format!("{value:.0}")) } else { significant(value) }
}

/// `1 234 567`.
pub(crate) fn count(value: u64) -> String {
    grouped(&value.to_string())
}

/// Of 0 to 1: `98 %`.
pub(crate) fn percent(share: f64) -> String {
    if share.is_finite() { format!("{}{NO_BREAK}%", significant(share * 100.0)) } else { NOTHING.to_owned() }
}

/// For axes: `1.5M`, `20k`.
pub(crate) fn short(value: f64) -> String {
    scaled(value, &[(1e3, ""), (1e3, "k"), (1e3, "M"), (f64::INFINITY, "G")]).replace(NO_BREAK, "")
}

/// Three significant digits, and no zeros at the end of a fraction.
pub(crate) fn significant(value: f64) -> String {
    if !value.is_finite() {
        return NOTHING.to_owned();
    }
    let decimals = match value.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.9995 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    let text = if text == "-0" { "0" } else { text };
    if text == "0" && value != 0.0 { format!("{value:.1e}") } else { text.to_owned() }
}

/// Of digits: thousands apart.
fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        let left = digits.len() - index;
        if index > 0 && left.is_multiple_of(3) && !text.ends_with('-') {
            text.push(NO_BREAK);
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        text.replace(NO_BREAK, " ")
    }

    #[test]
    fn three_digits_and_the_smallest_unit() {
        for (nanos, text) in [
            (0.0, "0 ns"),
            (87.0, "87 ns"),
            (999.6, "1 µs"),
            (87_123.0, "87.1 µs"),
            (999_499.0, "999 µs"),
            (1_230_000.0, "1.23 ms"),
            (1_203_000.0, "1.2 ms"),
            (600e9, "600 s"),
            (86_400e9, "86400 s"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(plain(&duration(nanos)), text, "{nanos}");
        }
        for (value, text) in [(0.0, "0 B"), (1023.0, "1023 B"), (1536.0, "1.5 KiB"), (4e12, "3.64 TiB")] {
            assert_eq!(plain(&bytes(value)), text, "{value}");
        }
    }

    #[test]
    fn thousands_stand_apart() {
        for (value, text) in [(0, "0"), (999, "999"), (1000, "1 000"), (1_234_567, "1 234 567")] {
            assert_eq!(plain(&count(value)), text);
        }
        for (value, text) in [(12.345, "12.3"), (999.7, "1 000"), (124_300.4, "124 300"), (-1234.0, "-1 234")] {
            assert_eq!(plain(&rate(value)), text);
        }
        for (value, text) in [(1_500_000.0, "1.5M"), (20_000.0, "20k"), (0.0, "0"), (250.0, "250")] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn what_is_no_number_is_not_written_as_one() {
        for text in [duration(f64::NAN), bytes(f64::INFINITY), rate(f64::NAN), percent(f64::NAN), short(f64::NAN)] {
            assert_eq!(text, NOTHING);
        }
    }

    #[test]
    fn small_is_not_nothing() {
        assert_eq!(significant(0.000_12), "1.2e-4");
        assert_eq!(significant(0.0123), "0.012");
        assert_eq!(plain(&percent(0.984)), "98.4 %");
    }
}
