//! A plot in SVG: scales, ticks and colours that suit a report; the crate `plotters` draws.
//!
//! It is drawn ten times as large as it is shown, because `plotters` counts in whole pixels. The neutral colours are
//! names too: the page's style gives them another value on a dark ground. The colours of lines are seen on both.

use super::quantity::{NO_BREAK, duration, short, significant};
use plotters::chart::ChartContext;
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::{
    ChartBuilder, Circle, Color, DashedLineSeries, HSLColor, IntoDrawingArea, IntoFont, LineSeries, RGBColor,
    SVGBackend, ShapeStyle, TRANSPARENT, Text,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::io;

/// As it is shown where nothing scales it.
const WIDTH: u32 = 520;
const HEIGHT: u32 = 290;
/// How much larger it is drawn.
const SCALE: u32 = 10;
/// Of a label, as the crate counts: 1.24 times what is written in the picture.
const FONT: (&str, u32) = ("sans-serif", 149);
/// What a character of a label takes at most where the page enlarges labels (small screens).
const CHARACTER_WIDTH: f64 = 9.6;
/// Left of the drawing, for labels; below it; right of it, for the half of the last label.
const LEFT: u32 = 70;
const BELOW: u32 = 30;
const RIGHT: u32 = 34;
const TOP: u32 = 14;
/// Ticks of an axis at most.
const TICKS_MAX: f64 = 6.0;
/// Of a logarithmic axis, whose labels are short.
const LOGARITHMIC_TICKS_MAX: usize = 7;
/// Of a percentile axis, in nines: 99.9999.
const NINES_MAX: f64 = 6.0;

/// `page.html` knows these by their values.
const GRID: RGBColor = RGBColor(0xd8, 0xdc, 0xe2);
const AXIS: RGBColor = RGBColor(0x80, 0x86, 0x8f);
const LABEL: RGBColor = RGBColor(0x50, 0x56, 0x5f);
#[cfg(test)]
pub(crate) const NEUTRAL: [RGBColor; 3] = [GRID, AXIS, LABEL];

const PALETTE: [RGBColor; 8] = [
    RGBColor(0x2f, 0x7f, 0xe0),
    RGBColor(0xd9, 0x77, 0x0a),
    RGBColor(0x1f, 0x9d, 0x63),
    RGBColor(0xd6, 0x40, 0x9f),
    RGBColor(0x8b, 0x5c, 0xf6),
    RGBColor(0x0d, 0x9f, 0xb0),
    RGBColor(0xe5, 0x48, 0x4d),
    RGBColor(0x8a, 0x8f, 0x98),
];

/// Of the line with this index of so many: told apart as far as eyes do, then from blue to red in their order.
pub(crate) fn colour(index: usize, of: usize) -> RGBColor {
    if of <= PALETTE.len() {
        return PALETTE[index];
    }
    let hue = (215.0 + 140.0 * index as f64 / (of - 1) as f64) / 360.0;
    let (red, green, blue) = HSLColor(hue, 0.65, 0.55).rgb();
    RGBColor(red, green, blue)
}

/// As CSS writes it.
pub(crate) fn css(colour: RGBColor) -> String {
    format!("#{:02x}{:02x}{:02x}", colour.0, colour.1, colour.2)
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Solid,
    Dashed,
    /// A line with a dot at each point.
    Dotted,
    /// Only rings.
    Rings,
}

pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) colour: RGBColor,
    pub(crate) style: Style,
    /// Stretches between gaps.
    pub(crate) points: Vec<Vec<(f64, f64)>>,
}

/// A border at `start`, and a name for what lies behind it.
pub(crate) struct Band {
    pub(crate) start: f64,
    pub(crate) label: String,
}

pub(crate) struct Plot {
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
    /// Along the x axis, in order.
    pub(crate) bands: Vec<Band>,
}

/// A scale and its ticks.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 to a tick above `high`.
    pub(crate) fn from_zero(high: f64, label: fn(f64) -> String) -> Self {
        let high = if high > 0.0 && high.is_finite() { high * 1.02 } else { 1.0 };
        let step = step(high, TICKS_MAX - 1.0);
        let count = (high / step).ceil().max(1.0);
        let ticks = (0..=count as u32).map(|index| f64::from(index) * step).map(|at| (at, label(at))).collect();
        Self { low: 0.0, high: count * step, logarithmic: false, ticks }
    }

    /// From 0 to exactly so many seconds, with ticks at round ones.
    pub(crate) fn time(seconds: f64) -> Self {
        let high = if seconds > 0.0 && seconds.is_finite() { seconds } else { 1.0 };
        let (unit, name) = match high {
            high if high > 3.0 * 3600.0 => (3600.0, "h"),
            high if high > 180.0 => (60.0, "min"),
            _ => (1.0, "s"),
        };
        let step = step(high / unit, TICKS_MAX);
        let count = (high / unit / step + 1e-6).floor() as u32;
        let label = |at: f64| format!("{}{NO_BREAK}{name}", significant(at));
        let ticks = (0..=count).map(|index| f64::from(index) * step).map(|at| (at * unit, label(at))).collect();
        Self { low: 0.0, high, logarithmic: false, ticks }
    }

    /// Logarithmic, with room for both ends, and ticks at powers of ten, or between them too if these are few.
    pub(crate) fn logarithmic(low: f64, high: f64, label: fn(f64) -> String) -> Self {
        let low = if low > 0.0 && low.is_finite() { low } else { 1.0 };
        let high = if high.is_finite() { high.max(low) } else { low };
        let powers = low.log10().floor() as i32..=high.log10().ceil() as i32;
        let at = |digits: &[f64], every: usize| -> Vec<f64> {
            let powers = powers.clone().step_by(every);
            powers.flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power))).collect()
        };
        // A little slack: 9.99 is 10.
        let ends = at(&[1.0, 2.0, 5.0], 1);
        let bottom = ends.iter().rev().find(|tick| **tick <= low * 1.001).copied().unwrap_or(low);
        let top = ends.iter().find(|tick| **tick >= high * 0.999 && **tick > bottom).copied();
        let top = top.unwrap_or(bottom * 10.0);
        let inside = |tick: &f64| (bottom * 0.999..=top * 1.001).contains(tick);
        // The densest for which there is room.
        let choices = [ends.clone(), at(&[1.0, 3.0], 1), at(&[1.0], 1), at(&[1.0], 2), at(&[1.0], 3), at(&[1.0], 6)];
        let ticks = choices.into_iter().map(|ticks| ticks.into_iter().filter(inside).collect::<Vec<f64>>());
        let ticks = ticks.reduce(|dense, sparse| if dense.len() <= LOGARITHMIC_TICKS_MAX { dense } else { sparse });
        let ticks = ticks.unwrap_or_default();
        let ticks = ticks.into_iter().map(|at| (at, label(at))).collect();
        Self { low: bottom, high: top, logarithmic: true, ticks }
    }

    /// Of latencies in nanoseconds: logarithmic if they are far apart.
    pub(crate) fn latency(low: f64, high: f64) -> Self {
        if high > low.max(1.0) * 8.0 {
            Self::logarithmic(low.max(1.0), high, duration)
        } else {
            Self::from_zero(high, duration)
        }
    }

    /// Of rates: logarithmic if they are far apart.
    pub(crate) fn rate(low: f64, high: f64) -> Self {
        if low > 0.0 && high > low * 12.0 { Self::logarithmic(low, high, short) } else { Self::from_zero(high, short) }
    }

    /// In nines, from the median to what so many values can tell: 1 is the 90th, 2 the 99th percentile.
    pub(crate) fn percentile(values: u64) -> Self {
        let low = nines(0.5);
        let high = (values.max(10) as f64).log10().min(NINES_MAX);
        let tick = |nines: u32| {
            let quantile = match nines {
                0 => return (low, "50".to_owned()),
                1 => "90".to_owned(),
                2 => "99".to_owned(),
                nines => format!("99.{}", "9".repeat(nines as usize - 2)),
            };
            (f64::from(nines), quantile)
        };
        Self { low, high, logarithmic: false, ticks: (0..=(high + 1e-9).floor() as u32).map(tick).collect() }
    }

    pub(crate) const fn ends(&self) -> (f64, f64) {
        (self.low, self.high)
    }
}

/// Where a quantile stands on a percentile axis.
pub(crate) fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

/// 1, 2 or 5 times a power of ten, so that at most so many of them fit.
fn step(high: f64, count_max: f64) -> f64 {
    let least = high / count_max;
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| *step >= least * 0.999).unwrap_or(least)
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        let share = if self.logarithmic {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        start + (share.clamp(0.0, 1.0) * f64::from(end - start)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // Asked twice: for the lines with labels, and for those between, of which there are none.
        if hint.max_num_points() == 0 { Vec::new() } else { self.ticks.iter().map(|(at, _)| *at).collect() }
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        self.ticks.iter().find(|(at, _)| at == value).map_or_else(String::new, |(_, label)| label.clone())
    }
}

/// As the text of an element or an attribute.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            c => safe.push(c),
        }
    }
    safe
}

type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<Axis, Axis>>;
type Drawn = Result<(), DrawingAreaErrorKind<io::Error>>;

/// The picture as an element of a page; `title` is for those who do not see it.
pub(crate) fn svg(title: &str, plot: &Plot) -> String {
    let mut text = String::new();
    draw(&mut text, plot).expect("a string takes any drawing");
    let drawn = format!("<svg width=\"{}\" height=\"{}\"", WIDTH * SCALE, HEIGHT * SCALE);
    let shown = format!("<svg role=\"img\" aria-label=\"{}\" width=\"{WIDTH}\" height=\"{HEIGHT}\"", escaped(title));
    text.replacen(&drawn, &shown, 1)
}

fn draw(text: &mut String, plot: &Plot) -> Drawn {
    let root = SVGBackend::with_string(text, (WIDTH * SCALE, HEIGHT * SCALE)).into_drawing_area();
    let mut chart = ChartBuilder::on(&root)
        .margin_top(TOP * SCALE)
        .margin_right(RIGHT * SCALE)
        .x_label_area_size(BELOW * SCALE)
        .y_label_area_size(LEFT * SCALE)
        .build_cartesian_2d(plot.x.clone(), plot.y.clone())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .max_light_lines(0)
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.stroke_width(SCALE))
        .axis_style(AXIS.stroke_width(SCALE))
        .label_style(FONT.into_font().color(&LABEL))
        .set_all_tick_mark_size(SCALE * 4)
        .draw()?;
    draw_bands(&mut chart, plot)?;
    for line in &plot.lines {
        draw_line(&mut chart, line)?;
    }
    drop(chart);
    root.present()
}

fn draw_line(chart: &mut Chart<'_>, line: &Line) -> Drawn {
    let style = line.colour.stroke_width(SCALE * 9 / 5);
    for points in &line.points {
        if line.style == Style::Rings {
            let ring = ShapeStyle { filled: false, ..style };
            chart.draw_series(points.iter().map(|point| Circle::new(*point, SCALE * 4, ring)))?;
        } else if points.len() == 1 || line.style == Style::Dotted {
            chart.draw_series(points.iter().map(|point| Circle::new(*point, SCALE * 5 / 2, style.filled())))?;
        }
        match line.style {
            Style::Rings => {}
            Style::Dashed => {
                let dashes = DashedLineSeries::new(points.clone(), SCALE * 5, SCALE * 4, style);
                chart.draw_series(dashes)?;
            }
            Style::Solid | Style::Dotted => {
                chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
            }
        }
    }
    Ok(())
}

/// Borders, and the names if there is room for all.
fn draw_bands(chart: &mut Chart<'_>, plot: &Plot) -> Drawn {
    let (low, high) = plot.y.ends();
    let ends = plot.bands.iter().skip(1).map(|band| band.start).chain([plot.x.high]);
    let per_pixel = (plot.x.high - plot.x.low) / f64::from(WIDTH - LEFT - RIGHT);
    let width_of = |label: &str| label.chars().count() as f64 * CHARACTER_WIDTH * per_pixel;
    let fit = plot.bands.iter().zip(ends.clone()).all(|(band, end)| width_of(&band.label) < end - band.start);
    let style = FONT.into_font().color(&LABEL).pos(Pos::new(HPos::Center, VPos::Bottom));
    for (band, end) in plot.bands.iter().zip(ends) {
        if band.start > plot.x.low {
            chart.draw_series(LineSeries::new([(band.start, low), (band.start, high)], GRID.stroke_width(SCALE)))?;
        }
        if fit && plot.bands.len() > 1 {
            let middle = f64::midpoint(band.start, end);
            chart.draw_series([Text::new(band.label.clone(), (middle, high), style.clone())])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::LATENCY_NANOS_MAX;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.ticks.iter().map(|(_, label)| label.replace(NO_BREAK, " ")).collect()
    }

    /// What lies between the labels that are nearest to each other, in pixels.
    fn room(axis: &Axis) -> f64 {
        let end = (WIDTH - LEFT - RIGHT) as i32;
        let at: Vec<f64> = axis.ticks.iter().map(|(at, _)| f64::from(axis.map(at, (0, end)))).collect();
        let half: Vec<f64> =
            labels(axis).iter().map(|label| label.chars().count() as f64 * CHARACTER_WIDTH / 2.0).collect();
        let rooms = (1..at.len()).map(|index| at[index] - half[index] - at[index - 1] - half[index - 1]);
        rooms.fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(&Axis::from_zero(124_300.0, short)), ["0", "50k", "100k", "150k"]);
        assert_eq!(labels(&Axis::time(30.0)), ["0 s", "5 s", "10 s", "15 s", "20 s", "25 s", "30 s"]);
        assert_eq!(labels(&Axis::time(1.0)), ["0 s", "0.2 s", "0.4 s", "0.6 s", "0.8 s", "1 s"]);
        assert_eq!(labels(&Axis::time(600.0)), ["0 min", "2 min", "4 min", "6 min", "8 min", "10 min"]);
        assert_eq!(labels(&Axis::percentile(12_000)), ["50", "90", "99", "99.9", "99.99"]);
        assert_eq!(
            labels(&Axis::logarithmic(8e4, 3e7, duration)),
            ["100 µs", "300 µs", "1 ms", "3 ms", "10 ms", "30 ms"]
        );
        assert_eq!(labels(&Axis::logarithmic(8.7e4, 9e4, duration)), ["50 µs", "100 µs"]);
        assert_eq!(labels(&Axis::logarithmic(1e3, 1e5, short)), ["1k", "2k", "5k", "10k", "20k", "50k", "100k"]);
    }

    #[test]
    fn every_axis_has_two_ticks_or_more_and_room_for_their_labels() {
        for power in -3..12 {
            for digit in [1.0, 1.7, 2.0, 3.3, 5.0, 9.99] {
                let high = digit * 10f64.powi(power);
                let mut axes =
                    vec![Axis::from_zero(high, short), Axis::time(high.min(1e6)), Axis::percentile(high as u64)];
                for ratio in [1.0, 1.01, 3.0, 40.0, 1e3, 1e7] {
                    axes.push(Axis::rate(high, (high * ratio).min(1e12)));
                    // Latencies are whole nanoseconds, and none is longer than that.
                    let latency = |nanos: f64| nanos.clamp(1.0, LATENCY_NANOS_MAX as f64);
                    axes.push(Axis::latency(latency(high), latency(high * ratio)));
                }
                for axis in axes {
                    assert!(axis.ticks.len() >= 2, "{axis:?}");
                    assert!(room(&axis) > 0.0, "{axis:?}");
                    assert!(axis.ticks.iter().all(|(at, _)| (axis.low..=axis.high * 1.01).contains(at)), "{axis:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_scale_gives_one() {
        for odd in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            for axis in [Axis::from_zero(odd, short), Axis::time(odd), Axis::latency(odd, odd), Axis::rate(odd, odd)] {
                assert!(axis.low.is_finite() && axis.high > axis.low, "{odd}: {axis:?}");
            }
        }
    }

    #[test]
    fn names_are_escaped_and_empty_and_single_points_are_drawn() {
        let line = |points| Line { name: String::new(), colour: colour(0, 1), style: Style::Solid, points };
        let plot = Plot {
            x: Axis::time(2.0),
            y: Axis::from_zero(1.0, short),
            lines: vec![line(vec![]), line(vec![vec![]]), line(vec![vec![(1.0, 0.5)]])],
            bands: vec![Band { start: 0.0, label: "<a>".into() }, Band { start: 1.0, label: "&".into() }],
        };
        let text = svg("\"<x>\"", &plot);
        assert!(text.starts_with("<svg role=\"img\" aria-label=\"&quot;&lt;x&gt;&quot;\" width=\"520\""), "{text}");
        assert!(text.contains("&lt;a&gt;") && text.matches("<circle").count() == 1, "{text}");
    }

    #[test]
    fn so_many_lines_have_so_many_colours() {
        for of in [1, 8, 9, 40] {
            let mut seen: Vec<String> = (0..of).map(|index| css(colour(index, of))).collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), of);
        }
    }
}
