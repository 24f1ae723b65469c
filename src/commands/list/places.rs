//! `list --places`: where containers are looked for, and what is there.

use serde::Serialize;
use shimstat::node::{Place, PlaceFound};

use crate::show::json;
use crate::show::table::{Align, Table};

/// A line for each place; `wide` says where it is written that somebody keeps containers there.
pub fn table(places: &[Place], wide: bool) -> Vec<u8> {
    let mut columns = vec!["DIRECTORY", "KEPT BY", "FOUND"];
    if wide {
        columns.push("SOURCE");
    }
    let mut table = Table::new(columns.into_iter().map(|heading| (heading, Align::Left)));
    for place in places {
        let usual = place.usual;
        table.row([
            place.path.display().to_string(),
            usual
                .map_or("(given by --state)", |usual| usual.keeper)
                .to_string(),
            found(&place.found),
            usual.map_or("-", |usual| usual.source).to_string(),
        ]);
    }
    table.lines().into_bytes()
}

fn found(found: &PlaceFound) -> String {
    let several = |count: usize, one: &str, more: &str| match count {
        1 => format!("1 {one}"),
        _ => format!("{count} {more}"),
    };
    let of_containers = |count: usize| several(count, "container", "containers");
    match found {
        PlaceFound::Missing => "-".to_string(),
        PlaceFound::NoBundles => "no bundles".to_string(),
        PlaceFound::SameAs(path) => format!("the same as {}", path.display()),
        PlaceFound::Bundles {
            containers,
            sandboxes: 0,
        } => of_containers(*containers),
        PlaceFound::Bundles {
            containers,
            sandboxes,
        } => format!(
            "{}, {} without a task",
            of_containers(*containers),
            several(*sandboxes, "sandbox", "sandboxes"),
        ),
        PlaceFound::Unreadable(error) => error.to_string(),
    }
}

#[derive(Serialize)]
struct PlaceObject {
    #[serde(skip_serializing_if = "Option::is_none")]
    containers: Option<usize>,
    directory: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    exists: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    same_as: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandboxes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
}

/// One array on one line.
pub fn json(places: &[Place]) -> Vec<u8> {
    let object = |place: &Place| {
        let counts = match place.found {
            PlaceFound::Bundles {
                containers,
                sandboxes,
            } => Some((containers, sandboxes)),
            _ => None,
        };
        PlaceObject {
            containers: counts.map(|(containers, _)| containers),
            directory: place.path.display().to_string(),
            error: match &place.found {
                PlaceFound::Unreadable(error) => Some(error.to_string()),
                _ => None,
            },
            exists: !matches!(place.found, PlaceFound::Missing),
            kept_by: place.usual.map(|usual| usual.keeper),
            same_as: match &place.found {
                PlaceFound::SameAs(path) => Some(path.display().to_string()),
                _ => None,
            },
            sandboxes: counts.map(|(_, sandboxes)| sandboxes),
            source: place.usual.map(|usual| usual.source),
        }
    };
    json::line(&places.iter().map(object).collect::<Vec<_>>())
}
