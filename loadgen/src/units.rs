//! Numbers as people write them on a command line: `10k` messages a second, `64KiB`.

use bytesize::ByteSize;

/// Longest message that can be asked for: what the protocol core takes in by default.
const SIZE_BYTES_MAX: u64 = 64 << 20;
/// Highest rate that can be asked for, messages a second: a nanosecond is the grain of the schedule.
const RATE_MAX: f64 = 1e9;

/// A rate: `250`, `0.5`, `10k`, `1.5M`; above 0 and at most 1e9.
pub(crate) fn parse_rate(text: &str) -> Result<f64, String> {
    let (number, factor) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1e3),
        Some(b'M') => (&text[..text.len() - 1], 1e6),
        _ => (text, 1.0),
    };
    let rate = number.trim().parse::<f64>().map_err(|_| format!("{text:?} is no rate; 250, 10k or 1.5M is"))? * factor;
    if rate.is_finite() && rate > 0.0 && rate <= RATE_MAX {
        Ok(rate)
    } else {
        Err(format!("{text} is not above 0 and at most {RATE_MAX:.0} a second"))
    }
}

/// Bytes of a message: `20`, `1KiB`, `16kB`; 1 to 64 MiB.
pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    let ByteSize(bytes) = text.parse().map_err(|_| format!("{text:?} is no size; 20, 1KiB or 64KiB is"))?;
    match bytes {
        1..=SIZE_BYTES_MAX => Ok(bytes as usize),
        _ => Err(format!("{text}: a message has 1 byte to {}", ByteSize(SIZE_BYTES_MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_sizes_are_read() {
        assert_eq!(parse_rate("10k"), Ok(10_000.0));
        assert_eq!(parse_rate("1.5M"), Ok(1_500_000.0));
        assert_eq!(parse_rate("0.5"), Ok(0.5));
        for wrong in ["", "k", "-1", "0", "inf", "NaN", "10 kk", "2e9"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_size("20"), Ok(20));
        assert_eq!(parse_size("1KiB"), Ok(1024));
        for wrong in ["", "0", "1GiB", "-4", "many"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
