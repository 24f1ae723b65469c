//! Pages for people.

use std::sync::Arc;

use shimstat::node::Pod;

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
                     text-align:left}code{font-size:1.1em}</style>";

fn html(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>{STYLE}</head>\n\
         <body><h1>{title}</h1>\n{body}</body></html>\n"
    )
}

/// The landing page.
pub fn landing_html() -> String {
    let rows: String = PLACES
        .iter()
        .map(|(path, text)| match path.contains("ID") {
            true => format!("<tr><td><code>{path}</code></td><td>{text}</td></tr>\n"),
            false => format!("<tr><td><a href=\"{path}\"><code>{path}</code></a></td><td>{text}</td></tr>\n"),
        })
        .collect();
    html(
        "kata-runtime monitor",
        &format!(
            "<p>What every sandbox and container on this node uses.</p>\n<table>\n{rows}</table>\n<p>Version {}, \
             commit {}.</p>\n",
            env!("CARGO_PKG_VERSION"),
            env!("KATA_RUNTIME_COMMIT")
        ),
    )
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
            assert!(landing_html().contains(&format!("href=\"{path}\"")), "{path}");
            assert!(landing_text().contains(path));
        }
    }
}
