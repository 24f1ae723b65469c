//! The list as a table, as JSON, as ids.

use std::time::SystemTime;

use crate::show::units;
use serde_json::{Map, Value};
use shimstat::node::Role;

use super::row::Row;
use crate::show::name::short_id;
use crate::show::table::{Align, Table};
use crate::show::text::escape;
use crate::show::{json, time};

/// Ids, a line each.
pub fn ids(ids: impl Iterator<Item = String>) -> String {
    let mut text = String::new();
    for id in ids {
        // A directory can be called anything, and a line must be one id.
        text += &escape(&id);
        text.push('\n');
    }
    text
}

pub fn table(rows: &[Row], now: SystemTime, whole_ids: bool, wide: bool) -> Vec<u8> {
    let mut columns = vec![
        ("ID", Align::Left),
        ("POD", Align::Left),
        ("CONTAINER", Align::Left),
        ("RUNTIME", Align::Left),
        ("STATUS", Align::Left),
        ("PID", Align::Right),
        ("AGE", Align::Right),
    ];
    if wide {
        columns.extend([
            ("NAMESPACE", Align::Left),
            ("POD UID", Align::Left),
            ("SHIM", Align::Left),
        ]);
    }
    let mut table = Table::new(&columns);
    for row in rows {
        let container = &row.container;
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_string());
        let id = if whole_ids {
            container.id().into()
        } else {
            short_id(container.id())
        };
        let mut cells = vec![
            format!("{}{id}", if row.is_in_a_sandbox() { "  " } else { "" }),
            or_dash(container.names().pod()),
            or_dash(container.names().container.clone()),
            or_dash(row.runtime.as_ref().map(ToString::to_string)),
            match row.exit_status {
                Some(status) => format!("{} ({status})", row.status),
                None => row.status.to_string(),
            },
            or_dash(row.pid.map(|pid| pid.to_string())),
            or_dash(row.age(now).map(units::age)),
        ];
        if wide {
            cells.extend([
                container.bundle.namespace.clone(),
                or_dash(container.names().uid.clone()),
                or_dash(
                    container
                        .endpoint
                        .as_ref()
                        .ok()
                        .map(|endpoint| endpoint.address.to_string()),
                ),
            ]);
        }
        table.row(cells);
    }
    format!("{table}\n").into_bytes()
}

/// One array on one line; what is not known is left out.
pub fn json(rows: &[Row], now: SystemTime) -> Vec<u8> {
    json::line(&rows.iter().map(|row| object(row, now)).collect())
}

fn object(row: &Row, now: SystemTime) -> Value {
    let container = &row.container;
    let (bundle, names) = (&container.bundle, container.names());
    let mut object = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            object.insert(key.to_string(), value);
        }
    };
    let text = |text: &Option<String>| text.clone().map(Value::from);
    put("id", Some(bundle.id.as_str().into()));
    put("namespace", Some(bundle.namespace.as_str().into()));
    put(
        "role",
        Some(
            match container.role() {
                Role::Sandbox => "sandbox",
                Role::InSandbox(_) => "container",
                Role::Plain => "plain",
            }
            .into(),
        ),
    );
    put("sandbox", container.sandbox_id().map(Value::from));
    put("pod_namespace", text(&names.namespace));
    put("pod", text(&names.name));
    put("pod_uid", text(&names.uid));
    put("container", text(&names.container));
    put("runtime", row.runtime.as_ref().map(|r| r.name.as_str().into()));
    put(
        "hypervisor",
        row.runtime.as_ref().and_then(|r| text(&r.hypervisor)),
    );
    put("status", Some(row.status.into()));
    put("exit_status", row.exit_status.map(Value::from));
    put("pid", row.pid.map(Value::from));
    put("created_at", row.created.map(|time| time::rfc3339(time).into()));
    put("age_seconds", row.age(now).map(|age| age.as_secs().into()));
    put("bundle", Some(bundle.path.to_string_lossy().into()));
    put(
        "shim",
        container
            .endpoint
            .as_ref()
            .ok()
            .map(|endpoint| endpoint.address.to_string().into()),
    );
    put("error", text(&row.error));
    object.into()
}
