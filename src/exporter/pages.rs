//! Pages for people.

use std::sync::Arc;
use std::time::Duration;

use shimstat::node::{Container, Pod};

use super::last_scrape::LastScrape;
use super::reason::{NoAnswer, Reason};
use crate::show::name::{label, short_id};
use crate::show::units::{self, Unit};
use crate::show::{text, time};

/// What there is to see, with what it is.
const PLACES: [(&str, &str); 5] = [
    (
        "/metrics",
        "metrics of all sandboxes and containers, for Prometheus",
    ),
    (
        "/metrics?filter_family=kata_guest_,container_cpu_",
        "the same, only families with these prefixes",
    ),
    ("/sandboxes", "the sandboxes on this node"),
    ("/agent-url?sandbox=ID", "where a sandbox's agent listens"),
    ("/healthz", "whether this exporter works"),
];

const STYLE: &str = "<style>body{font-family:sans-serif;margin:2em;max-width:70em}td,th{padding:.2em .8em .2em 0;\
                     text-align:left}.n{text-align:right}code{font-size:1.1em}</style>";

fn html(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>{STYLE}</head>\n\
         <body><h1>{title}</h1>\n{body}</body></html>\n"
    )
}

/// The landing page: what the last scrape found, and where to go from here.
pub fn landing_html(last: Option<&LastScrape>) -> String {
    let rows: String = PLACES
        .iter()
        .map(|(path, text)| match path.contains("ID") {
            true => format!("<tr><td><code>{path}</code></td><td>{text}</td></tr>\n"),
            false => format!("<tr><td><a href=\"{path}\"><code>{path}</code></a></td><td>{text}</td></tr>\n"),
        })
        .collect();
    let found = match last {
        None => "<p>Nothing has been scraped yet. <a href=\"/metrics\">Scrape now</a>, then come back.</p>\n"
            .to_string(),
        Some(last) => failures(last) + &figures(last),
    };
    html(
        "kata-runtime monitor",
        &format!(
            "{found}<h2>Pages</h2>\n<table>\n{rows}</table>\n<p>Version {}, commit {}.</p>\n",
            env!("CARGO_PKG_VERSION"),
            env!("KATA_RUNTIME_COMMIT")
        ),
    )
}

/// What did not answer, and why.
fn failures(last: &LastScrape) -> String {
    let mut rows = String::new();
    let mut add = |subject: String, failure: &NoAnswer| {
        rows += &format!(
            "<tr><td>{}</td><td><code>{}</code></td><td>{}</td></tr>\n",
            shown(&subject),
            failure.reason.label(),
            shown(&failure.text),
        );
    };
    for result in &last.pods {
        if let Some(failure) = &result.failure {
            add(format!("sandbox {}", pod_label(&result.pod)), failure);
        }
        for (container, answer) in result.containers() {
            // One that has stopped is no failure.
            if let Err(failure) = answer
                && failure.reason != Reason::Stopped
            {
                add(format!("container {}", label(container)), failure);
            }
        }
    }
    match rows.as_str() {
        "" => String::new(),
        rows => format!(
            "<h2>Not answering</h2>\n<table>\n<tr><th>who</th><th>reason</th><th>what happened</th></tr>\n{rows}</table>\n"
        ),
    }
}

/// A row a container, those of a pod together.
fn figures(last: &LastScrape) -> String {
    let mut rows = String::new();
    for result in &last.pods {
        let mut pod = match result.pod.monitor.is_empty() {
            true => shown(&pod_label(&result.pod)),
            false => format!(
                "<a href=\"/metrics?sandbox={}\">{}</a>",
                form_urlencoded::byte_serialize(result.pod.id.as_bytes()).collect::<String>(),
                shown(&pod_label(&result.pod)),
            ),
        };
        for (container, answer) in result.containers() {
            rows += &format!(
                "<tr><td>{}</td><td>{}</td>",
                std::mem::take(&mut pod),
                name_in_pod(container)
            );
            rows += &match answer {
                Ok(figures) => {
                    let cells = [
                        figures.cpu_share.map(|share| Unit::Share.show(share)),
                        figures.memory.map(units::bytes),
                        figures.limit.map(units::bytes),
                        figures.processes.map(|count| count.to_string()),
                    ];
                    cells
                        .map(|cell| format!("<td class=n>{}</td>", cell.unwrap_or_default()))
                        .concat()
                }
                Err(failure) => format!("<td colspan=4>{}</td>", failure.reason.label()),
            };
            rows += "</tr>\n";
        }
    }
    let at = time::rfc3339_of(last.at).unwrap_or_default();
    let took = go_duration::show(Duration::from_millis(
        last.took.as_millis().try_into().unwrap_or(u64::MAX),
    ));
    format!(
        "<p>As the last scrape found it, at {at} in {took}. CPU is that since the scrape before: 100% is one processor.</p>\n\
         <table>\n<tr><th>pod</th><th>container</th><th>CPU</th><th>memory</th><th>limit</th><th>processes</th></tr>\n{rows}</table>\n"
    )
}

fn pod_label(pod: &Pod) -> String {
    match pod.names().pod() {
        Some(name) => name,
        None => short_id(&pod.id).to_string(),
    }
}

fn name_in_pod(container: &Container) -> String {
    match container.is_sandbox() {
        true => "(sandbox)".to_string(),
        false => shown(
            container
                .names()
                .container
                .as_deref()
                .unwrap_or(short_id(container.id())),
        ),
    }
}

/// A text from elsewhere as HTML that shows it, with what would make it look like another escaped.
fn shown(text: &str) -> String {
    escape(&text::escape(text))
}

/// The same for a terminal.
pub fn landing_text() -> String {
    let width = PLACES.iter().map(|(path, _)| path.len()).max().unwrap_or(0);
    let rows = PLACES
        .iter()
        .map(|(path, text)| format!("{path:width$}  {text}\n"));
    format!(
        "kata-runtime monitor: what every sandbox and container on this node uses\n\n{}",
        rows.collect::<String>()
    )
}

/// A list of sandboxes with where to go from there. What pods are called is not to be trusted.
pub fn sandboxes_html(sandboxes: &[Arc<Pod>]) -> String {
    let rows: String = sandboxes
        .iter()
        .map(|sandbox| {
            let query: String = form_urlencoded::byte_serialize(sandbox.id.as_bytes()).collect();
            let id = escape(&sandbox.id);
            let name = |name: &Option<String>| escape(name.as_deref().unwrap_or_default());
            format!(
                "<tr><td><code>{id}</code></td><td>{}</td><td>{}</td><td><a href=\"/metrics?sandbox={query}\">metrics</a> \
                 <a href=\"/agent-url?sandbox={query}\">agent-url</a></td></tr>\n",
                name(&sandbox.names().namespace),
                name(&sandbox.names().name),
            )
        })
        .collect();
    html(
        "Sandboxes",
        &format!(
            "<table>\n<tr><th>sandbox</th><th>namespace</th><th>pod</th><th></th></tr>\n{rows}</table>\n"
        ),
    )
}

/// Their ids, one a line, as kata-monitor has it.
pub fn sandboxes_text(sandboxes: &[Arc<Pod>]) -> String {
    sandboxes
        .iter()
        .map(|sandbox| format!("{}\n", sandbox.id))
        .collect()
}

/// A text that shows in HTML as it is.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::container;
    use shimstat::node::{PodNames, Role, pods};

    #[test]
    fn names_of_pods_are_text_and_no_more() {
        let names = PodNames {
            namespace: Some("<script>alert('x')</script>".into()),
            name: Some("\"&".into()),
            ..PodNames::NONE
        };
        let sandboxes: Vec<_> = pods(&[container("ab-c", Role::Sandbox, names)])
            .into_iter()
            .map(Arc::new)
            .collect();
        let page = sandboxes_html(&sandboxes);
        assert!(!page.contains("<script"));
        assert!(
            page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;") && page.contains("&quot;&amp;")
        );
        assert!(page.contains("href=\"/metrics?sandbox=ab-c\""));
        assert_eq!(sandboxes_text(&sandboxes), "ab-c\n");
    }

    #[test]
    fn the_landing_page_leads_everywhere() {
        for path in ["/metrics", "/sandboxes", "/healthz"] {
            assert!(landing_html(None).contains(&format!("href=\"{path}\"")), "{path}");
            assert!(landing_text().contains(path));
        }
    }
}
