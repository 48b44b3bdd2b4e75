//! `warploss info --kernels`: every kernel, loaded, and what the driver says of it.

use super::device::DeviceChoice;
use super::failure::Failure;
use serde_json::Value;

/// One object: the device, and a list of its kernels.
#[cfg(gpu)]
pub(super) fn gather(choice: DeviceChoice) -> Result<Value, Failure> {
    use crate::cuda::stream::resources::Listed;
    use serde_json::json;

    let device = choice.open()?;
    let start = std::time::Instant::now();
    let listed = device.kernels();
    let seconds = start.elapsed().as_secs_f64();
    if listed.is_empty() {
        return Err(none(device.name()));
    }
    let failed = listed.iter().filter(|k| k.resources.is_err()).count();
    let kernel = |listed: &Listed| {
        let clusters = listed.clusters.iter().map(|(block, size, active)| {
            let mut object = json!({
                "threads": block.threads, "shared": block.shared, "size": size,
            });
            match active {
                Ok(active) => object["active"] = json!(active),
                Err(why) => object["failed"] = why.to_string().into(),
            }
            object
        });
        let clusters: Vec<Value> = clusters.collect();
        let mut object = json!({ "kernel": listed.symbol, "module": listed.module });
        match &listed.resources {
            Ok(found) => {
                object["registers"] = json!(found.registers);
                object["shared"] = json!(found.shared);
                object["local"] = json!(found.local);
                object["threads"] = found.threads.min(listed.threads).into();
            }
            Err(why) => object["failed"] = why.to_string().into(),
        }
        if let Ok(places) = &listed.places {
            object["places"] = (*places).into();
        }
        if !clusters.is_empty() {
            object["clusters"] = clusters.into();
        }
        object
    };
    Ok(json!({
        "device": device.name(),
        "description": device.description(),
        "early_launches": device.early_launches(),
        "loaded": listed.len() - failed,
        "failed": failed,
        "seconds": super::number::f64(seconds),
        "kernels": listed.iter().map(kernel).collect::<Vec<_>>(),
    }))
}

#[cfg(not(gpu))]
pub(super) fn gather(choice: DeviceChoice) -> Result<Value, Failure> {
    Err(none(choice.open()?.name()))
}

fn none(device: &str) -> Failure {
    Failure::input(format!("--kernels: expected a CUDA or an emulated device, got {device}"))
}

/// What `gather` found, for people: a line a kernel.
pub(super) fn text(value: &Value) -> String {
    let or = |v: &Value, other: &str| match v {
        Value::Null => other.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut text = format!(
        "{}: {} kernels loaded, {} failed; launches {}\n",
        or(&value["description"], ""),
        value["loaded"],
        value["failed"],
        match value["early_launches"] == true {
            true => "may begin before the one before is done",
            false => "begin when the one before is done",
        }
    );
    for kernel in value["kernels"].as_array().into_iter().flatten() {
        let name = or(&kernel["kernel"], "");
        if let Some(why) = kernel["failed"].as_str() {
            text += &format!("{name:<44} failed: {why}\n");
            continue;
        }
        let [registers, shared, local, threads, places] =
            ["registers", "shared", "local", "threads", "places"].map(|key| or(&kernel[key], "?"));
        text += &format!(
            "{name:<44} {registers:>3} registers, {shared:>6} bytes shared, {local} local, {threads} threads, \
             {places} blocks a multiprocessor\n"
        );
        for cluster in kernel["clusters"].as_array().into_iter().flatten() {
            let [size, threads, shared] = ["size", "threads", "shared"].map(|k| &cluster[k]);
            let active = or(&cluster["active"], "?");
            text += &format!(
                "  clusters of {size} × {threads} threads, {shared} bytes: {active} active\n"
            );
        }
    }
    text
}
