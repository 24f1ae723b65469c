//! From a request to its answer.

use std::time::Duration;

use exporter_web::header::HeaderMap;
use exporter_web::{Request, Response, StatusCode};
use promtext::Filter;
use shimstat::survey::MonitorQuestion;
use tokio::time::Instant;

use super::pages;
use super::profile::Selection;
use super::scrape::Scraper;
use crate::context::Context;

/// Without word from the scraper: Prometheus's own default.
const USUAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Nobody waits longer for a scrape.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(100);

/// Answers requests.
pub struct Routes {
    context: Context,
    scraper: Scraper,
    /// What is served at all.
    selection: Selection,
}

impl Routes {
    pub fn new(context: Context, scraper: Scraper, selection: Selection) -> Self {
        Self {
            context,
            scraper,
            selection,
        }
    }

    pub async fn answer(&self, request: Request) -> Response {
        let html = request.accepts_html();
        match request.path() {
            "/" if html => Response::html(pages::landing_html(self.scraper.last().as_deref())),
            "/" => text(StatusCode::OK, pages::landing_text()),
            "/healthz" => text(StatusCode::OK, "ok\n"),
            // Nobody is asked for what is not sent.
            "/metrics" if request.is_head() => Response::metrics(""),
            "/sandboxes" | "/metrics" | "/agent-url" => self.answer_of_node(&request).await,
            _ => text(StatusCode::NOT_FOUND, "there is nothing here: see /\n"),
        }
    }

    async fn answer_of_node(&self, request: &Request) -> Response {
        if let Err(failure) = self.context.expect_an_answer().await {
            let why = failure.lines().join("\n");
            return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n"));
        }
        match request.path() {
            "/sandboxes" => self.sandboxes(request.accepts_html()),
            "/metrics" => self.metrics(request).await,
            _ => self.agent_url(request).await,
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
        let claimed = tokio::time::timeout_at(deadline, request.claim_large_answer());
        if claimed.await.is_err() {
            return text(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many scrapes are being answered\n",
            );
        }
        let selection = self.selection.and(Selection::of(&families));
        match self.scraper.gather(&selection, deadline).await {
            Ok(gathered) => {
                let response = Response::metrics_from(gathered.page(&selection));
                match selection.is_lean {
                    true => response.compressed_harder(),
                    false => response,
                }
            }
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
