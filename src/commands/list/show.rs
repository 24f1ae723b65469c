//! The list as a table, as JSON, as ids.

use std::time::SystemTime;

use crate::show::units;
use serde_json::{Map, Value};
use shimstat::node::Role;

use super::row::Row;
use crate::show::table::{Align, Table};
use crate::show::text::escape;
use crate::show::{json, time};

/// The digits of an id that are shown.
const SHORT: usize = 12;

/// Ids of so many hex digits were made up at random: their beginnings are ids as well. Others are shown whole.
const RANDOM: usize = 32;

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
            container.bundle.id.as_str()
        } else {
            short(&container.bundle.id)
        };
        let mut cells = vec![
            format!("{}{id}", if row.is_in_a_sandbox() { "  " } else { "" }),
            or_dash(row.pod()),
            or_dash(container.names.container.clone()),
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
                or_dash(container.names.uid.clone()),
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

/// The beginning of an id that was made up at random, any other id as it is.
fn short(id: &str) -> &str {
    let random = id.len() >= RANDOM && id.bytes().all(|b| b.is_ascii_hexdigit());
    id.get(..SHORT).filter(|_| random).unwrap_or(id)
}

/// One array on one line; what is not known is left out.
pub fn json(rows: &[Row], now: SystemTime) -> Vec<u8> {
    json::line(&rows.iter().map(|row| object(row, now)).collect())
}

fn object(row: &Row, now: SystemTime) -> Value {
    let container = &row.container;
    let (bundle, names) = (&container.bundle, &container.names);
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
            match container.role {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_made_up_at_random_are_cut() {
        let random = "5779b2366f47cd1468ebb1ba7c52cbdde3c7d3a5f2af3eefadc8356700fc860b";
        assert_eq!(short(random), "5779b2366f47");
        assert_eq!(
            short("web-server-of-the-shop-in-namespace-default-1"),
            "web-server-of-the-shop-in-namespace-default-1"
        );
        assert_eq!(short("5779b2366f47cd"), "5779b2366f47cd");
    }
}
