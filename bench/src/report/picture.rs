//! Throughput against the size of a block as a picture: shared memory on the left, tcp on the right, both axes
//! logarithmic.

use crate::curve::{Curve, size_name};
use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (1200, 760);
const LEGEND_HEIGHT: i32 = 140;
const TITLE_HEIGHT: i32 = 36;
const ROW_HEIGHT: i32 = 24;
const GRID: RGBColor = RGBColor(224, 224, 224);

/// Colours that differ for those who do not see all of them, too.
const BLUE: RGBColor = RGBColor(0, 90, 181);
const SKY: RGBColor = RGBColor(86, 180, 233);
const VERMILION: RGBColor = RGBColor(213, 94, 0);
const ORANGE: RGBColor = RGBColor(230, 159, 0);
const GREEN: RGBColor = RGBColor(0, 128, 96);
const GREY: RGBColor = RGBColor(90, 90, 90);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// What a line looks like.
struct Look {
    colour: RGBColor,
    width: u32,
    /// A list of blocks has hollow points; a plain write has filled ones.
    hollow: bool,
}

fn look(name: &str) -> Look {
    let colour = match name {
        name if name.starts_with("dmaplane") => BLUE,
        name if name.starts_with("NIXL tuned") => ORANGE,
        name if name.starts_with("NIXL") => VERMILION,
        name if name.starts_with("Mooncake") => GREEN,
        name if name.starts_with("iperf3") => SKY,
        _ => GREY,
    };
    let width = if name.starts_with("dmaplane") { 4 } else { 2 };
    Look { colour, width, hollow: name.ends_with("list") || name.ends_with("LIST") }
}

/// Draws all curves into an SVG file.
pub fn draw(file: &Path, curves: &[Curve]) -> Result<()> {
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| anyhow!("drawing {}: {error}", file.display());
    root.fill(&WHITE).map_err(|error| failed(&error))?;
    let (left, right) = root.split_horizontally(SIZE.0 / 2);
    panel(&left, curves, "shm", "Two processes, shared memory").map_err(|error| failed(&error))?;
    panel(&right, curves, "tcp", "Two processes, tcp on loopback").map_err(|error| failed(&error))?;
    root.present().map_err(|error| failed(&error))
}

fn panel(area: &Area<'_>, curves: &[Curve], fabric: &str, title: &str) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| anyhow!("{error}");
    let curves: Vec<&Curve> = curves.iter().filter(|curve| curve.fabric == fabric).collect();
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let (Some(first), Some(last)) = (points().map(|p| p.0).min(), points().map(|p| p.0).max()) else {
        let style = ("sans-serif", 20).into_font().color(&BLACK);
        let text = Text::new(format!("{title}: not measured"), (40, 40), style);
        return area.draw(&text).map_err(|error| failed(&error));
    };
    let lowest = points().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let highest = points().map(|p| p.1).fold(0.0, f64::max);
    let decades = |value: f64, up: bool| {
        let exponent = if up { value.log10().ceil() } else { value.log10().floor() };
        10f64.powf(exponent)
    };
    let (low, high) = (decades(lowest, false), decades(highest, true));
    let (chart, legend) = area.split_vertically(SIZE.1 as i32 - LEGEND_HEIGHT);
    let mut sizes: Vec<f64> = points().map(|point| point.0 as f64).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    let across = (first as f64 * 0.8..last as f64 * 1.25).log_scale().with_key_points(sizes);
    let mut context = ChartBuilder::on(&chart)
        .caption(title, ("sans-serif", 22))
        .margin(14)
        .x_label_area_size(60)
        .y_label_area_size(76)
        .build_cartesian_2d(across, (low..high).log_scale())
        .map_err(|error| failed(&error))?;
    context
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(RGBColor(244, 244, 244))
        .x_desc("size of a block")
        .y_desc("GB/s")
        .x_label_formatter(&|bytes| size_name(bytes.round() as u64))
        .y_label_formatter(&|rate| format!("{rate}"))
        .x_label_style(("sans-serif", 14))
        .y_label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 17))
        .draw()
        .map_err(|error| failed(&error))?;
    for curve in &curves {
        let Look { colour, width, hollow } = look(&curve.name);
        let line = curve.points.iter().map(|(bytes, rate)| (*bytes as f64, *rate));
        let stroke = colour.stroke_width(width);
        let drawn = if hollow {
            context.draw_series(DashedLineSeries::new(line.clone(), 8, 5, stroke)).map(drop)
        } else {
            context.draw_series(LineSeries::new(line.clone(), stroke)).map(drop)
        };
        drawn.map_err(|error| failed(&error))?;
        context.draw_series(line.map(|at| point(at, colour, hollow))).map_err(|error| failed(&error))?;
    }
    key(&legend, &curves).map_err(|error| failed(&error))
}

fn point<C>(at: C, colour: RGBColor, hollow: bool) -> Circle<C, i32> {
    Circle::new(at, 5, if hollow { colour.stroke_width(2) } else { colour.filled() })
}

/// Names of the lines below their chart, in two columns.
fn key(area: &Area<'_>, curves: &[&Curve]) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| anyhow!("{error}");
    let rows = (LEGEND_HEIGHT - TITLE_HEIGHT / 2) / ROW_HEIGHT;
    for (place, curve) in curves.iter().enumerate() {
        let (column, row) = (place as i32 / rows, place as i32 % rows);
        let (x, y) = (80 + column * 260, 12 + row * ROW_HEIGHT);
        let Look { colour, width, hollow } = look(&curve.name);
        let (from, to) = ((x, y), (x + 40, y));
        let halves = if hollow { vec![(from, (x + 14, y)), ((x + 26, y), to)] } else { vec![(from, to)] };
        for (from, to) in halves {
            let line = PathElement::new(vec![from, to], colour.stroke_width(width));
            area.draw(&line).map_err(|error| failed(&error))?;
        }
        area.draw(&point((x + 20, y), colour, hollow)).map_err(|error| failed(&error))?;
        let style = ("sans-serif", 16).into_font().color(&BLACK);
        area.draw(&Text::new(curve.name.clone(), (x + 50, y - 8), style)).map_err(|error| failed(&error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_names_its_lines_axes_and_units() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("picture.svg");
        let curve = |fabric: &str, name: &str| Curve {
            fabric: fabric.to_owned(),
            name: name.to_owned(),
            points: vec![(4096, 0.3), (1 << 20, 6.0), (64 << 20, 8.5)],
        };
        draw(&file, &[curve("shm", "dmaplane, WRITE_LIST"), curve("tcp", "iperf3, one stream")]).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        for expected in ["dmaplane, WRITE_LIST", "iperf3, one stream", "GB/s", "size of a block", "4 KiB", "64 MiB"] {
            assert!(text.contains(expected), "{expected}");
        }
        draw(&file, &[]).unwrap();
        assert!(std::fs::read_to_string(&file).unwrap().contains("not measured"));
    }
}
