//! From a request to its answer.

use std::time::{Duration, Instant};

use exporter_web::{Answer, Answering, App, Connections, Progress, takes_gzip, takes_html};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use hyper::{Method, Request, Response, StatusCode};
use promtext::Filter;
use shimstat::survey::MonitorQuestion;

use super::pod::Wish;
use super::scrape::Scraper;
use super::{pages, query};

/// How many scrapes may hold their pages at the same time. Those of a thousand sandboxes have 60 MB.
const MOST_PAGES: usize = 8;

/// Without word from the scraper: Prometheus's own default.
const USUAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Nobody waits longer for a scrape.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(100);

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers requests.
pub struct Routes {
    connections: Connections,
    scraper: Scraper,
}

impl App for Routes {
    async fn answer(
        &self,
        request: Request<Incoming>,
        answering: Answering,
        progress: &Progress,
    ) -> Response<Answer> {
        self.route(&request, answering, progress).await
    }
}

impl Routes {
    pub fn new(connections: Connections, scraper: Scraper) -> Self {
        Self { connections, scraper }
    }

    async fn route(
        &self,
        request: &Request<Incoming>,
        answering: Answering,
        progress: &Progress,
    ) -> Response<Answer> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(
                StatusCode::METHOD_NOT_ALLOWED,
                "GET and HEAD are answered\n",
                answering,
            );
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let html = takes_html(request.headers());
        let query = request.uri().query();
        match request.uri().path() {
            "/" if html => whole(StatusCode::OK, HTML, pages::landing_html(), answering),
            "/" => text(StatusCode::OK, pages::landing_text(), answering),
            "/healthz" => text(StatusCode::OK, "ok\n", answering),
            "/sandboxes" => self.sandboxes(html, answering),
            // Nobody is asked for what is not sent.
            "/metrics" if request.method() == Method::HEAD => {
                whole(StatusCode::OK, PROMETHEUS, String::new(), answering)
            }
            "/metrics" => self.metrics(request.headers(), query, answering, progress).await,
            "/agent-url" => self.agent_url(request.headers(), query, answering).await,
            _ => text(StatusCode::NOT_FOUND, "there is nothing here: see /\n", answering),
        }
    }

    fn sandboxes(&self, html: bool, answering: Answering) -> Response<Answer> {
        match self.scraper.sandboxes() {
            Ok(sandboxes) if html => {
                let page = pages::sandboxes_html(&sandboxes);
                whole(StatusCode::OK, HTML, page, answering)
            }
            Ok(sandboxes) => text(StatusCode::OK, pages::sandboxes_text(&sandboxes), answering),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"), answering),
        }
    }

    async fn metrics(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        answering: Answering,
        progress: &Progress,
    ) -> Response<Answer> {
        let deadline = Instant::now() + timeout(headers);
        let families = query::value(query, "filter_family").unwrap_or_default();
        if let Some(sandbox) = query::value(query, "sandbox") {
            return self.one_sandbox(&sandbox, &families, deadline, answering).await;
        }
        let room = self.connections.room_for_pages(MOST_PAGES);
        if tokio::time::timeout_at(deadline.into(), room).await.is_err() {
            let line = "too many scrapes are being answered\n";
            return text(StatusCode::SERVICE_UNAVAILABLE, line, answering);
        }
        progress.hold_pages();
        let gathered = match self.scraper.gather(wish(&families), deadline).await {
            Ok(gathered) => gathered,
            Err(error) => {
                return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"), answering);
            }
        };
        let gzip = takes_gzip(headers);
        let page = gathered.page(&Filter::parse(&families));
        let mut response = typed(StatusCode::OK, PROMETHEUS, Answer::parts(page, gzip, answering));
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        if gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }

    /// One sandbox's page: as it came, or its families that are asked for.
    async fn one_sandbox(
        &self,
        sandbox: &str,
        families: &str,
        deadline: Instant,
        answering: Answering,
    ) -> Response<Answer> {
        match self
            .scraper
            .body(sandbox, MonitorQuestion::Metrics, deadline)
            .await
        {
            Ok(body) if families.is_empty() => {
                typed(StatusCode::OK, PROMETHEUS, Answer::whole(body, answering))
            }
            Ok(body) => match filtered(body, families) {
                Ok(page) => typed(StatusCode::OK, PROMETHEUS, Answer::whole(page, answering)),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"), answering),
            },
            // The statuses are kata-monitor's.
            Err(failure) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("{}\n", failure.text),
                answering,
            ),
        }
    }

    async fn agent_url(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        answering: Answering,
    ) -> Response<Answer> {
        let Some(sandbox) = query::value(query, "sandbox") else {
            return text(
                StatusCode::BAD_REQUEST,
                "which one? /agent-url?sandbox=ID\n",
                answering,
            );
        };
        let deadline = Instant::now() + timeout(headers);
        match self
            .scraper
            .body(&sandbox, MonitorQuestion::AgentUrl, deadline)
            .await
        {
            Ok(body) => text(StatusCode::OK, [&body[..], b"\n"].concat(), answering),
            Err(failure) => text(StatusCode::BAD_REQUEST, format!("{}\n", failure.text), answering),
        }
    }
}

/// A page with some of its families.
fn filtered(body: bytes::Bytes, families: &str) -> Result<Vec<u8>, promtext::PageTooLong> {
    use promtext::{Merge, Page, Relabel};
    let page = Page::index(body, Relabel::default())?;
    Ok(Merge::new(vec![page], &Filter::parse(families)).into_bytes())
}

/// What has to be asked so that families whose names begin so can be served. What cannot be in the page is not
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
        };
    }
    let overlaps = |prefix: &str, name: &str| prefix.starts_with(name) || name.starts_with(prefix);
    let nothing = Wish {
        pages: false,
        stats: false,
    };
    prefixes.fold(nothing, |wish, prefix| Wish {
        pages: wish.pages || !prefix.starts_with("container_"),
        stats: wish.stats || overlaps(prefix, "container_") || overlaps(prefix, "kata_monitor_container_"),
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

fn text(status: StatusCode, text: impl Into<bytes::Bytes>, answering: Answering) -> Response<Answer> {
    whole(status, TEXT, text, answering)
}

fn whole(
    status: StatusCode,
    kind: &'static str,
    content: impl Into<bytes::Bytes>,
    answering: Answering,
) -> Response<Answer> {
    typed(status, kind, Answer::whole(content, answering))
}

fn typed(status: StatusCode, kind: &'static str, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_in_the_page_is_not_asked_for() {
        for (families, pages, stats) in [
            ("", true, true),
            (" , ", true, true),
            ("kata_guest_", true, false),
            ("container_cpu", false, true),
            ("container_", false, true),
            ("c", true, true),
            ("kata_", true, true),
            ("kata_monitor_container_up", true, true),
            ("kata_monitor_sandbox_up", true, false),
            ("kata_guest_,container_", true, true),
            ("go_", true, false),
        ] {
            assert_eq!(wish(families), Wish { pages, stats }, "{families}");
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
                headers.insert(
                    "X-Prometheus-Scrape-Timeout-Seconds",
                    HeaderValue::from_static(header),
                );
            }
            assert_eq!(
                timeout(&headers),
                Duration::from_millis(milliseconds),
                "{header:?}"
            );
        }
    }
}
