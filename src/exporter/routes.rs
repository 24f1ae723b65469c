//! From a request to its answer.

use std::time::{Duration, Instant};

use exporter_web::header::HeaderMap;
use exporter_web::{Request, Response, StatusCode};
use promtext::Filter;
use shimstat::survey::MonitorQuestion;

use super::container_metrics;
use super::pages;
use super::pod::Wish;
use super::scrape::Scraper;

/// Without word from the scraper: Prometheus's own default.
const USUAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Nobody waits longer for a scrape.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(100);

/// Answers requests.
pub struct Routes {
    scraper: Scraper,
}

impl Routes {
    pub fn new(scraper: Scraper) -> Self {
        Self { scraper }
    }

    pub async fn answer(&self, request: Request) -> Response {
        let html = request.accepts_html();
        match request.path() {
            "/" if html => Response::html(pages::landing_html()),
            "/" => text(StatusCode::OK, pages::landing_text()),
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/sandboxes" => self.sandboxes(html),
            // Nobody is asked for what is not sent.
            "/metrics" if request.is_head() => Response::metrics(""),
            "/metrics" => self.metrics(&request).await,
            "/agent-url" => self.agent_url(&request).await,
            _ => text(StatusCode::NOT_FOUND, "there is nothing here: see /\n"),
        }
    }

    fn sandboxes(&self, html: bool) -> Response {
        match self.scraper.sandboxes() {
            Ok(sandboxes) if html => Response::html(pages::sandboxes_html(&sandboxes)),
            Ok(sandboxes) => text(StatusCode::OK, pages::sandboxes_text(&sandboxes)),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    async fn metrics(&self, request: &Request) -> Response {
        let deadline = Instant::now() + timeout(request.headers());
        let families = request.query("filter_family").unwrap_or_default();
        if let Some(sandbox) = request.query("sandbox") {
            return self.one_sandbox(&sandbox, &families, deadline).await;
        }
        let claimed = tokio::time::timeout_at(deadline.into(), request.claim_large_answer());
        if claimed.await.is_err() {
            return text(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many scrapes are being answered\n",
            );
        }
        match self.scraper.gather(wish(&families), deadline).await {
            Ok(gathered) => Response::metrics_from(gathered.page(&Filter::parse(&families))),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    /// One sandbox's page: as it came, or its families that are asked for.
    async fn one_sandbox(&self, sandbox: &str, families: &str, deadline: Instant) -> Response {
        match self
            .scraper
            .body(sandbox, MonitorQuestion::Metrics, deadline)
            .await
        {
            Ok(body) if families.is_empty() => Response::metrics(body),
            Ok(body) => match filtered(body, families) {
                Ok(page) => Response::metrics(page),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            // The statuses are kata-monitor's.
            Err(failure) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", failure.text)),
        }
    }

    async fn agent_url(&self, request: &Request) -> Response {
        let Some(sandbox) = request.query("sandbox") else {
            return text(StatusCode::BAD_REQUEST, "which one? /agent-url?sandbox=ID\n");
        };
        let deadline = Instant::now() + timeout(request.headers());
        match self
            .scraper
            .body(&sandbox, MonitorQuestion::AgentUrl, deadline)
            .await
        {
            Ok(body) => text(StatusCode::OK, [&body[..], b"\n"].concat()),
            Err(failure) => text(StatusCode::BAD_REQUEST, format!("{}\n", failure.text)),
        }
    }
}

/// A page with some of its families.
fn filtered(body: bytes::Bytes, families: &str) -> Result<Vec<u8>, promtext::Error> {
    use promtext::{Merge, Page, Relabel};
    let page = Page::read(body, Relabel::default())?;
    Ok(Merge::new(vec![page], &Filter::parse(families)).into_bytes())
}

/// What has to be asked for families with these prefixes to be served. What cannot be in the page is not
/// asked for.
fn wish(families: &str) -> Wish {
    let mut prefixes = families
        .split(',')
        .map(str::trim)
        .filter(|prefix| !prefix.is_empty())
        .peekable();
    if prefixes.peek().is_none() {
        return Wish {
            pages: true,
            stats: true,
            vm: true,
            host: true,
        };
    }
    let overlaps = |prefix: &str, name: &str| prefix.starts_with(name) || name.starts_with(prefix);
    let nothing = Wish {
        pages: false,
        stats: false,
        vm: false,
        host: false,
    };
    prefixes.fold(nothing, |wish, prefix| {
        let vm = overlaps(prefix, "kata_sandbox_");
        let ours = prefix.starts_with("container_") || prefix.starts_with("kata_sandbox_");
        Wish {
            pages: wish.pages || !ours,
            stats: wish.stats
                || vm
                || overlaps(prefix, "container_")
                || overlaps(prefix, "kata_monitor_container_"),
            vm: wish.vm || vm,
            host: wish.host || container_metrics::needs_host(prefix),
        }
    })
}

/// How long there is for gathering: what the scraper gives, less what it takes to write and read the page.
fn timeout(headers: &HeaderMap) -> Duration {
    let given = headers
        .get("x-prometheus-scrape-timeout-seconds")
        .and_then(|value| value.to_str().ok()?.trim().parse::<f64>().ok())
        .filter(|seconds| seconds.is_finite() && *seconds > 0.0)
        .map_or(USUAL_TIMEOUT, |seconds| {
            Duration::from_secs_f64(seconds.min(1e6)).min(LONGEST_TIMEOUT)
        });
    let margin = (given / 10)
        .clamp(Duration::from_millis(250), Duration::from_secs(2))
        .min(given / 2);
    given - margin
}

fn text(status: StatusCode, text: impl Into<bytes::Bytes>) -> Response {
    Response::text(status, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_in_the_page_is_not_asked_for() {
        for (families, pages, stats, vm, host) in [
            ("", true, true, true, true),
            (" , ", true, true, true, true),
            ("kata_guest_", true, false, false, false),
            ("container_cpu", false, true, false, true),
            ("container_cpu_usage,container_memory_", false, true, false, false),
            ("container_fs_usage_bytes", false, true, false, true),
            ("container_", false, true, false, true),
            ("c", true, true, false, true),
            ("kata_", true, true, true, false),
            ("kata_sandbox_overhead_", false, true, true, false),
            ("kata_monitor_container_up", true, true, false, false),
            ("kata_monitor_sandbox_up", true, false, false, false),
            ("kata_guest_,container_", true, true, false, true),
            ("go_", true, false, false, false),
        ] {
            let expected = Wish {
                pages,
                stats,
                vm,
                host,
            };
            assert_eq!(wish(families), expected, "{families}");
        }
    }

    #[test]
    fn a_scrape_ends_before_its_scraper_gives_up() {
        for (header, milliseconds) in [
            (None, 9_000),
            (Some("10"), 9_000),
            (Some("10.000000"), 9_000),
            (Some("1"), 750),
            (Some("0.2"), 100),
            (Some("60"), 58_000),
            (Some("1e9"), 98_000),
            (Some("0"), 9_000),
            (Some("-1"), 9_000),
            (Some("NaN"), 9_000),
            (Some("inf"), 9_000),
            (Some("soon"), 9_000),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                let value = header.parse().unwrap();
                headers.insert("X-Prometheus-Scrape-Timeout-Seconds", value);
            }
            assert_eq!(
                timeout(&headers),
                Duration::from_millis(milliseconds),
                "{header:?}"
            );
        }
    }
}
