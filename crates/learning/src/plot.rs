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
    chart.configure_mesh().x_desc(x).y_desc(y).light_line_style(WHITE).draw()?;
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
