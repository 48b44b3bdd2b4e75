//! The predicted time against the size of the shortlist, as an SVG file.

use crate::cli::failure::Failure;
use crate::planner::{CutoffPlanner, Plan};
use crate::spec::adaptive_log_softmax::AdaptiveLogSoftmax;
use plotters::prelude::*;
use std::path::Path;

/// Points of a curve.
const POINTS: usize = 200;
/// How many numbers of clusters have a curve: those up to the plan's.
const COLOURS: [RGBColor; 4] = [
    RGBColor(176, 190, 197),
    RGBColor(144, 164, 174),
    RGBColor(96, 125, 139),
    RGBColor(0, 121, 107),
];

pub(super) fn draw<'a>(
    path: &Path,
    planner: &CutoffPlanner,
    plan: &Plan,
    others: impl Iterator<Item = (&'a str, &'a AdaptiveLogSoftmax<'static>)>,
) -> Result<(), Failure> {
    let fail = |e: String| Failure::failed(format!("--svg {}: {e}", path.display()));
    let classes = plan.loss().classes();
    let shortlists = shortlists(classes);
    let clusters = plan.cutoffs.len();
    let mut curves = Vec::new();
    for of in (1..=clusters).rev().take(COLOURS.len()) {
        let times = planner.by_shortlist(of, &shortlists)?;
        let points = shortlists.iter().zip(times).filter(|(_, t)| t.is_finite());
        let points: Vec<_> = points.map(|(&c, t)| (c as f64, t * 1e3)).collect();
        curves.push((of, points));
    }
    let mut marks = Vec::new();
    for (name, loss) in others.filter(|(_, loss)| loss.cutoffs()[0] + 1 < classes) {
        marks.push((name, loss.cutoffs()[0] as f64, planner.predict(loss.cutoffs())? * 1e3));
    }
    let best = plan.predicted_seconds * 1e3;
    let top = marks.iter().map(|m| m.2).fold(best * 4.0, f64::max).min(best * 64.0) * 1.2;

    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (800, 480)).into_drawing_area();
        let drawn = (|| {
            root.fill(&WHITE)?;
            let mut chart = ChartBuilder::on(&root)
                .margin(16)
                .margin_right(48)
                .x_label_area_size(40)
                .y_label_area_size(64)
                .build_cartesian_2d(
                    (1f64..classes as f64).log_scale(),
                    (best * 0.8..top).log_scale(),
                )?;
            chart
                .configure_mesh()
                .x_desc("classes in the shortlist")
                .y_desc("predicted ms, forward and backward")
                .x_label_formatter(&|x| format!("{x:.0}"))
                .y_label_formatter(&|&y| format!("{}", (y * 1e3).round() / 1e3))
                .light_line_style(WHITE)
                .draw()?;
            for ((of, points), colour) in curves.iter().zip(COLOURS.iter().rev()) {
                let points: Vec<_> = points.iter().copied().filter(|p| p.1 < top).collect();
                if points.is_empty() {
                    continue;
                }
                let style = colour.stroke_width(2);
                chart
                    .draw_series(LineSeries::new(points, style))?
                    .label(format!("{of} cluster{}", if *of == 1 { "" } else { "s" }))
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
            }
            let mut marked = vec![("plan", plan.cutoffs[0] as f64, best)];
            marked.extend(marks.iter().copied().filter(|m| m.2 < top));
            for (name, x, y) in marked {
                chart.draw_series([EmptyElement::at((x, y))
                    + Circle::new((0, 0), 4, RED.filled())
                    + Text::new(name.to_owned(), (8, -14), ("sans-serif", 14))])?;
            }
            chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
            root.present()
        })();
        drawn.map_err(|e: DrawingAreaErrorKind<_>| fail(e.to_string()))?;
    }
    std::fs::write(path, svg).map_err(|e| fail(e.to_string()))
}

/// Sizes with even steps of their logarithm.
fn shortlists(classes: usize) -> Vec<usize> {
    let last = classes as f64;
    let mut sizes: Vec<usize> =
        (0..POINTS).map(|i| last.powf(i as f64 / (POINTS - 1) as f64) as usize).collect();
    sizes.dedup();
    sizes
}
