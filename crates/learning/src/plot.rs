//! Curves on one page, as SVG.

use std::io;
use std::ops::Range;
use std::path::Path;

use plotters::prelude::*;
use stackelberg_data::{Error as FileError, atomic};

use crate::error::Error;

/// A named curve.
#[derive(Debug, Clone)]
pub struct Curve {
    /// Its name in the legend.
    pub name: String,
    /// Points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// Drawn thicker than the others.
    pub thick: bool,
}

/// Ten colours that can be told apart.
const COLOURS: [RGBColor; 10] = [
    RGBColor(0x1f, 0x1f, 0x1f),
    RGBColor(0xe1, 0x57, 0x59),
    RGBColor(0x4e, 0x79, 0xa7),
    RGBColor(0x76, 0xb7, 0xb2),
    RGBColor(0x59, 0xa1, 0x4f),
    RGBColor(0xb0, 0x7a, 0xa1),
    RGBColor(0xf2, 0x8e, 0x2b),
    RGBColor(0x9c, 0x75, 0x5f),
    RGBColor(0xed, 0xc9, 0x48),
    RGBColor(0xff, 0x9d, 0xa7),
];

/// The greatest number of ticks of an axis. They are multiples of 1, 2 or 5 times a power of ten.
const TICKS: usize = 10;

/// The label of a tick, without trailing zeros and rounding errors.
fn tick(value: &f64) -> String {
    let value: f64 = format!("{value:.6e}").parse().unwrap_or(*value);
    let short = value == 0.0 || (1e-4..1e6).contains(&value.abs());
    // Zero has no sign.
    if short { format!("{}", value + 0.0) } else { format!("{value:e}") }
}

/// Draws curves into an SVG file, which is written atomically. The axes span the points.
///
/// # Errors
/// The curves cannot be drawn, or the file cannot be written.
pub fn draw(path: &Path, title: &str, x: &str, y: &str, curves: &[Curve]) -> Result<(), Error> {
    let points = || curves.iter().flat_map(seen);
    let (across, up) = (range(points().map(|p| p.0)), range(points().map(|p| p.1)));
    // The legend goes where curves that rise, or fall, leave room.
    let left: f64 = curves.iter().filter_map(|curve| seen(curve).next()).map(|p| p.1).sum();
    let right: f64 = curves.iter().filter_map(|curve| seen(curve).last()).map(|p| p.1).sum();
    let corner = match right >= left {
        true => SeriesLabelPosition::LowerRight,
        false => SeriesLabelPosition::UpperRight,
    };
    let mut svg = String::new();
    svg_of(&mut svg, title, (x, y), (across, up), corner, curves)
        .map_err(|e| FileError::write(path, io::Error::other(format!("cannot draw it: {e}"))))?;
    Ok(atomic::write(path, svg.as_bytes())?)
}

fn svg_of(
    svg: &mut String,
    title: &str,
    (x, y): (&str, &str),
    (across, up): (Range<f64>, Range<f64>),
    corner: SeriesLabelPosition,
    curves: &[Curve],
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, (860, 520)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(across, up)?;
    chart
        .configure_mesh()
        .x_desc(x)
        .y_desc(y)
        .x_labels(TICKS)
        .y_labels(TICKS)
        .x_label_formatter(&tick)
        .y_label_formatter(&tick)
        .light_line_style(WHITE)
        .draw()?;
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(if curve.thick { 4 } else { 2 });
        chart
            .draw_series(LineSeries::new(seen(curve), style))?
            .label(&curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(corner)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}

fn seen(curve: &Curve) -> impl Iterator<Item = (f64, f64)> {
    curve.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite())
}

/// From the least to the most, with a little room; never nothing.
fn range(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if low > high {
        return 0.0..1.0;
    }
    let room = if high > low { 0.02 * (high - low) } else { 0.5 * low.abs().max(1.0) };
    low - room..high + room
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The labels of the ticks of a drawn plot: position and text, of the horizontal and of the vertical axis.
    fn ticks(svg: &str) -> [Vec<(f64, String)>; 2] {
        let mut axes = [Vec::new(), Vec::new()];
        for text in svg.split("<text ").skip(1) {
            let attribute = |name: &str| {
                let start = text.find(&format!("{name}=\"")).unwrap() + name.len() + 2;
                text[start..].split('"').next().unwrap().to_owned()
            };
            let words = text.split(['>', '<']).nth(1).unwrap().trim().to_owned();
            let [x, y] = ["x", "y"].map(|name| attribute(name).parse::<f64>().unwrap());
            match (words.parse::<f64>(), attribute("text-anchor").as_str()) {
                (Ok(_), "middle") => axes[0].push((x, words)),
                (Ok(_), _) => axes[1].push((y, words)),
                _ => {}
            }
        }
        axes.iter_mut().for_each(|axis| axis.sort_by(|a, b| a.0.total_cmp(&b.0)));
        axes
    }

    /// Whether a number is 1, 2 or 5 times a power of ten.
    fn is_round(value: f64) -> bool {
        ["1e", "2e", "5e"].iter().any(|digit| format!("{value:e}").starts_with(digit))
    }

    #[test]
    fn ticks_are_round_and_do_not_overlap() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plot.svg");
        for points in [
            vec![(0.276_71, 3.795_1), (1.150_55, 9.102_61), (61.806_4, 12.1)],
            vec![(0.013_7, -0.5), (0.531_3, 0.7)],
            vec![(1.0, 0.25), (15.0, 0.125)],
            vec![(3e-7, 1e7), (9.1e-7, 4.2e7)],
            vec![(12_345.6, -1e-9), (987_654.3, 1e-9)],
            vec![(2.5, 2.5)],
        ] {
            let curves = [Curve { name: "one".to_owned(), points: points.clone(), thick: true }];
            draw(&file, "title", "across", "up", &curves).unwrap();
            let svg = std::fs::read_to_string(&file).unwrap();
            for (axis, labels) in ticks(&svg).into_iter().enumerate() {
                let words: Vec<&String> = labels.iter().map(|label| &label.1).collect();
                assert!((2..=TICKS).contains(&labels.len()), "{points:?}: {words:?}");
                let values: Vec<f64> = words.iter().map(|text| text.parse().unwrap()).collect();
                let step = tick(&(values[1] - values[0]).abs()).parse::<f64>().unwrap();
                assert!(is_round(step), "{step}: {words:?}");
                let multiple = |value: &f64| (value / step - (value / step).round()).abs() < 1e-6;
                assert!(values.iter().all(multiple), "{step}: {words:?}");
                for pair in labels.windows(2) {
                    // A digit of a label is about seven pixels wide, and a line twelve high.
                    let half = |text: &str| 3.5 * text.len() as f64;
                    let needed = if axis == 0 { half(&pair[0].1) + half(&pair[1].1) } else { 12.0 };
                    assert!(pair[1].0 - pair[0].0 > needed, "{words:?}");
                }
            }
        }
    }

    #[test]
    fn labels_of_ticks_are_short() {
        for (value, label) in
            [(0.3000000000000004, "0.3"), (2.0, "2"), (-0.0, "0"), (1e-7, "1e-7"), (2.5e6, "2.5e6")]
        {
            assert_eq!(tick(&value), label);
        }
    }
}
