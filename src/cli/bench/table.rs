//! The results as a table for people, or as one JSON object a line for scripts.

use crate::check::bench::Kind;
use crate::cli::bench::line::Measured;
use crate::cli::{grid, info, number};
use crate::device::Device;
use crate::measure::{Bandwidth, Pass};
use comfy_table::CellAlignment;
use serde_json::{Map, Value};

impl Measured {
    fn gb_per_s(&self) -> f64 {
        self.timing.gb_per_s(self.bytes)
    }

    /// The bandwidth of the plainest work with the same reads and writes, and its name.
    fn bound(&self, bandwidth: &Bandwidth) -> (f64, &'static str) {
        let (Kind::Rows(bench) | Kind::Elements(bench)) = self.line.op.parts().1 else {
            return (bandwidth.copy, "copy");
        };
        let (plainest, name) = match bench.traffic(self.line.pass).writes {
            0 => (bandwidth.read, "read"),
            _ if bench.consumes(self.line.pass) => (bandwidth.scale, "scale"),
            _ => (None, "copy"),
        };
        plainest.map_or((bandwidth.copy, "copy"), |rate| (rate, name))
    }

    /// One line of JSON, with its line break.
    pub(super) fn json(&self, device: &Device, bandwidth: &Bandwidth) -> String {
        format!("{}\n", Value::Object(self.object(device, bandwidth)))
    }

    /// The same, as an object.
    pub(super) fn object(&self, device: &Device, bandwidth: &Bandwidth) -> Map<String, Value> {
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| object.insert(key.into(), value);
        put("op", self.line.op.parts().0.into());
        put("pass", self.line.pass.name().into());
        put("dtype", self.line.dtype.name().into());
        put("rows", self.line.rows.into());
        put("classes", self.line.classes.into());
        if let Kind::Elements(_) = self.line.op.parts().1 {
            put("elements", self.line.classes.into());
        }
        if let Some(operations) = self.operations {
            put("hidden", self.line.hidden.into());
            put("cutoffs", self.line.cutoffs.clone().into());
            if self.line.subset > 0 {
                put("subset", self.line.subset.into());
            }
            if self.line.rows_temperature {
                put("rows_temperature", true.into());
            }
            if let Some(bound) = self.line.filter {
                put("filter", number::f64(bound.into()));
            }
            put("gflop_per_s", number::f64(operations / self.timing.median / 1e9));
        }
        put("device", device.name().into());
        put("median_s", number::f64(self.timing.median));
        put("min_s", number::f64(self.timing.min));
        put("max_s", number::f64(self.timing.max));
        put("runs", self.timing.runs.into());
        put("bytes", self.bytes.into());
        put("gb_per_s", number::f64(self.gb_per_s()));
        put("copy_gb_per_s", number::f64(bandwidth.copy));
        put("share_of_copy", number::f64(self.gb_per_s() / bandwidth.copy));
        put("scale_gb_per_s", bandwidth.scale.map_or(Value::Null, number::f64));
        put("read_gb_per_s", bandwidth.read.map_or(Value::Null, number::f64));
        put("copy_bytes", bandwidth.bytes.into());
        put("row_kernels_s", self.row_kernels.map_or(Value::Null, number::f64));
        object
    }
}

/// The machine, its bandwidths, and a row for each line.
pub(super) fn render(device: &Device, bandwidth: &Bandwidth, measured: &[Measured]) -> String {
    let machine = match device.name() {
        "cpu" => {
            let model = info::cpu_model().unwrap_or_else(|| "unknown processor".into());
            format!("{model}, {}", device.description())
        }
        _ => device.description(),
    };
    let Bandwidth { copy, scale, read, .. } = *bandwidth;
    let others = [("scale in place", scale), ("read", read)];
    let rates: String = others
        .iter()
        .filter_map(|(name, rate)| rate.map(|rate| format!(", {name} {rate:.1}")))
        .collect();
    let mut table = grid::new([
        "op",
        "pass",
        "dtype",
        "rows",
        "classes",
        "median ms",
        "min",
        "max",
        "runs",
        "GB/s",
        "of copy",
        "of bound",
    ]);
    for m in measured {
        let (bound, name) = m.bound(bandwidth);
        let ms = |s: f64| format!("{:.3}", s * 1e3);
        table.add_row([
            m.line.op.parts().0.to_owned(),
            pass_name(m.line.pass).to_owned(),
            m.line.dtype.to_string(),
            m.line.rows.to_string(),
            m.line.classes.to_string(),
            ms(m.timing.median),
            ms(m.timing.min),
            ms(m.timing.max),
            m.timing.runs.to_string(),
            format!("{:.1}", m.gb_per_s()),
            percent(m.gb_per_s() / copy),
            match m.operations {
                Some(operations) => format!("{:.0} GFLOP/s", operations / m.timing.median / 1e9),
                None => format!("{} of {name}", percent(m.gb_per_s() / bound)),
            },
        ]);
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!(
        "warploss {} on {}: {machine}\n\
         memory, GB/s in this run: copy {copy:.1}{rates}\n\
         {table}\n",
        env!("CARGO_PKG_VERSION"),
        device.name(),
    )
}

fn pass_name(pass: Pass) -> &'static str {
    match pass {
        Pass::Forward | Pass::Backward => pass.name(),
        Pass::ForwardBackward => "fwd-bwd",
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}
