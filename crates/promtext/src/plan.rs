//! The families of a merged page: the type of each, and what belongs to it.
//!
//! Pages may disagree on types. No sample is dropped for that; types are:
//!
//! - A family has the type that most pages give it; in a tie, that of the first page. If a page has samples that
//!   cannot be of that type (a plain `x` where others have a histogram `x`, a bucket without a bound), the family is
//!   `untyped`, and its `x_bucket`, `x_sum` and `x_count` become families of their own.
//! - If one page has a histogram or summary `x` and another a family named `x_sum`, Prometheus's Go client can read
//!   only one of the two TYPE lines. The histogram takes in the samples of `x_sum`, unless more pages declare `x_sum`
//!   a family: then `x` is `untyped`, as above.
//! - The help is that of the first page that has one.

#![allow(clippy::indexing_slicing)] // Only of the votes, which every kind has.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::filter::Filter;
use crate::kind::Kind;
use crate::layout::{Layout, Name, Shape, Span};
use crate::page::Page;

/// A family of the merged page.
#[derive(Debug)]
pub(crate) struct Family {
    pub name: Vec<u8>,
    pub kind: Kind,
    /// The page that has the help, and where in it.
    pub help: Option<(usize, Span)>,
    /// Ordered by page.
    pub parts: Vec<Part>,
    /// Two of the pages may have the same series, added labels included: each sample must be checked.
    pub overlaps: bool,
}

/// What one page has under one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub page: u32,
    /// Its index in the page's list of names.
    pub name: u32,
}

/// The families of `pages` that `filter` fits, sorted by name.
pub(crate) fn plan<P: Borrow<Page>>(pages: &[P], filter: &Filter) -> Vec<Family> {
    let mut places: BTreeMap<&[u8], usize> = BTreeMap::new();
    let mut found: Vec<Found> = Vec::new();
    // Most pages share a layout, so its names are looked up once.
    let mut layouts: HashMap<*const Layout, Vec<usize>> = HashMap::new();
    for (page, at) in pages.iter().map(Borrow::borrow).zip(0..) {
        let layout = page.layout();
        let ours = layouts.entry(Arc::as_ptr(layout)).or_insert_with(|| {
            let names = layout.names.iter().map(|name| layout.text(name.name));
            names
                .map(|name| {
                    *places.entry(name).or_insert_with(|| {
                        found.push(Found::default());
                        found.len() - 1
                    })
                })
                .collect()
        });
        for ((name, place), &found_at) in layout.names.iter().zip(0..).zip(&*ours) {
            if let Some(found) = found.get_mut(found_at) {
                found.add(
                    Part {
                        page: at,
                        name: place,
                    },
                    name,
                );
            }
        }
    }
    let mut all: Vec<Named> = places
        .into_iter()
        .map(|(name, place)| Named {
            name,
            found: found.get_mut(place).map(std::mem::take).unwrap_or_default(),
            taken: false,
        })
        .collect();
    let origins = origins(pages);
    // No family has this number.
    let mut last = vec![usize::MAX; origins.len()];
    let mut families = Vec::new();
    for at in 0..all.len() {
        let Some((named, after)) = all.get_mut(at..).and_then(<[_]>::split_first_mut) else {
            break;
        };
        if named.taken {
            continue;
        }
        let kind = settle(named, after);
        let Found { mut parts, help, .. } = std::mem::take(&mut named.found);
        if parts.is_empty() || !filter.fits(named.name) {
            continue;
        }
        parts.sort_by_key(|part| part.page);
        let overlaps = overlap(&parts, &origins, &mut last, at);
        families.push(Family {
            name: named.name.to_vec(),
            kind,
            help,
            parts,
            overlaps,
        });
    }
    families
}

/// What the pages have under one name.
#[derive(Default)]
struct Found {
    parts: Vec<Part>,
    shape: Shape,
    /// For each type, how many pages give it and the first that does.
    votes: [(u32, u32); Kind::ALL.len()],
    help: Option<(usize, Span)>,
}

impl Found {
    fn add(&mut self, part: Part, name: &Name) {
        if name.shape.has(Shape::SAMPLES) {
            self.parts.push(part);
            self.shape = self.shape | name.shape;
        }
        if let Some(kind) = name.kind {
            let (count, first) = &mut self.votes[kind as usize];
            if *count == 0 {
                *first = part.page;
            }
            *count += 1;
        }
        if self.help.is_none() {
            self.help = name.help.map(|help| (part.page as usize, help));
        }
    }

    fn votes_for(&self, kind: Kind) -> u32 {
        self.votes[kind as usize].0
    }

    /// The type that most pages give, and how many pages do.
    fn elected(&self) -> (Kind, u32) {
        let best = |kind: &Kind| {
            let (count, first) = self.votes[*kind as usize];
            (count, std::cmp::Reverse(first))
        };
        let kind = Kind::ALL.into_iter().max_by_key(best).unwrap_or(Kind::Untyped);
        match self.votes_for(kind) {
            0 => (Kind::Untyped, 0),
            count => (kind, count),
        }
    }
}

struct Named<'a> {
    name: &'a [u8],
    found: Found,
    /// A histogram or summary has taken in the samples.
    taken: bool,
}

/// Decides the type of a family, and moves the samples of a histogram's or summary's `_bucket`, `_sum` and `_count`
/// to it.
///
/// `after` has the names that sort after this one, and those do.
fn settle(named: &mut Named<'_>, after: &mut [Named<'_>]) -> Kind {
    let (elected, votes) = named.found.elected();
    let kind = if fits(elected, votes, named, after) {
        elected
    } else {
        Kind::Untyped
    };
    for suffix in kind.suffixes() {
        if let Some(member) = member(named.name, suffix, after) {
            member.taken = true;
            named.found.parts.append(&mut member.found.parts);
        }
    }
    kind
}

/// Whether all samples of this name can be in a family of this type, which `votes` pages give it.
fn fits(kind: Kind, votes: u32, named: &Named<'_>, after: &mut [Named<'_>]) -> bool {
    let (own, bound) = match kind {
        Kind::Histogram => (Shape::SAMPLES, Shape::BAD_LE),
        Kind::Summary => (Shape::NO_QUANTILE | Shape::BAD_QUANTILE, Shape::BAD_QUANTILE),
        _ => return true,
    };
    !named.found.shape.has(own)
        && kind.suffixes().iter().all(|suffix| {
            let bad = if *suffix == "_bucket" {
                Shape::NO_LE | bound
            } else {
                bound
            };
            member(named.name, suffix, after).is_none_or(|member| {
                let rivals: u32 = member.found.votes.iter().map(|(count, _)| count).sum();
                rivals <= votes && !member.found.shape.has(bad)
            })
        })
}

/// The entry for `base` followed by `suffix`, in a list sorted by name.
fn member<'a, 'n>(base: &[u8], suffix: &str, names: &'a mut [Named<'n>]) -> Option<&'a mut Named<'n>> {
    let wanted = || base.iter().chain(suffix.as_bytes());
    let at = names
        .binary_search_by(|named| named.name.iter().cmp(wanted()))
        .ok()?;
    names.get_mut(at)
}

/// The labels that a page adds, as numbers: two pages that add the same label names with different values have no series in
/// common.
#[derive(Debug, Clone, Copy)]
struct Origin {
    names: usize,
    text: usize,
}

fn origins<'a, P: Borrow<Page>>(pages: &'a [P]) -> Vec<Origin> {
    let mut texts: HashMap<&[u8], usize> = HashMap::new();
    let mut names: HashMap<Vec<&[u8]>, usize> = HashMap::new();
    let origin = |page: &'a P| {
        let relabel = page.borrow().relabel();
        let (next_text, next_names) = (texts.len(), names.len());
        let of_page = relabel.labels().map(|label| label.name).collect();
        Origin {
            names: *names.entry(of_page).or_insert(next_names),
            text: *texts.entry(relabel.text()).or_insert(next_text),
        }
    };
    pages.iter().map(origin).collect()
}

/// Whether two of the pages may have a series in common. `last` has for each text the family in which it was last, and
/// `family` is this one's number.
fn overlap(parts: &[Part], origins: &[Origin], last: &mut [usize], family: usize) -> bool {
    let origin = |part: &Part| origins.get(part.page as usize);
    let Some(first) = parts.first().and_then(origin) else {
        return false;
    };
    let mut pages = parts.chunk_by(|one, next| one.page == next.page);
    pages.any(|of_page| {
        let Some(origin) = of_page.first().and_then(origin) else {
            return true;
        };
        let Some(last) = last.get_mut(origin.text) else {
            return true;
        };
        origin.names != first.names || std::mem::replace(last, family) == family
    })
}

#[cfg(test)]
mod tests {
    use crate::{Filter, Merge, Page, Relabel};

    /// The merged page of bodies, each with its own value of the label `id`.
    fn merged(bodies: &[&str]) -> String {
        let ids = ["a", "b", "c", "d"];
        let page = |(body, id): (&&str, &str)| {
            Page::read(body.to_string(), Relabel::new([("id", id)]).unwrap()).unwrap()
        };
        let merge = Merge::new(bodies.iter().zip(ids).map(page).collect(), &Filter::default());
        String::from_utf8(merge.into_bytes()).unwrap()
    }

    /// Comparing series takes a quarter of the time of a long page: pages with the same labels are compared in the families
    /// that both have.
    #[test]
    fn pages_with_the_same_labels_overlap_in_the_families_that_they_share() {
        let page = |body: &'static str, id| Page::read(body, Relabel::new([("id", id)]).unwrap()).unwrap();
        let pages = [
            page("x 1\ny 1\n", "a"),
            page("z 1\ny 1\n", "a"),
            page("x 1\nz 1\n", "b"),
        ];
        let families = super::plan(&pages, &Filter::default());
        let overlaps: Vec<_> = families
            .iter()
            .map(|family| (family.name.as_slice(), family.overlaps))
            .collect();
        assert_eq!(overlaps, [(&b"x"[..], false), (b"y", true), (b"z", false)]);
    }

    #[test]
    fn families_are_sorted_and_whole() {
        let one = "# HELP b B\n# TYPE b gauge\nb 1\na 2\nb{x=\"1\"} 3\n";
        let two = "# HELP a A\n# TYPE a counter\na 4\n# TYPE b gauge\nb 5\n# TYPE empty gauge\n";
        assert_eq!(
            merged(&[one, two]),
            r#"# HELP a A
# TYPE a counter
a{id="a"} 2
a{id="b"} 4
# HELP b B
# TYPE b gauge
b{id="a"} 1
b{x="1",id="a"} 3
b{id="b"} 5
"#
        );
    }

    #[test]
    fn a_histogram_keeps_its_samples_together_and_in_order() {
        let body = "# HELP x X\n# TYPE x histogram\nx_bucket{le=\"1\"} 1\nx_bucket{le=\"+Inf\"} 2\nx_sum 3\nx_count 2\n\
                    x_bucket{m=\"2\",le=\"+Inf\"} 1\nx_sum{m=\"2\"} 1\nx_count{m=\"2\"} 1\n";
        let samples = r#"x_bucket{le="1",id="a"} 1
x_bucket{le="+Inf",id="a"} 2
x_sum{id="a"} 3
x_count{id="a"} 2
x_bucket{m="2",le="+Inf",id="a"} 1
x_sum{m="2",id="a"} 1
x_count{m="2",id="a"} 1
"#;
        let other =
            "# TYPE x_count_total counter\nx_count_total 1\nx_counts 1\n# TYPE x histogram\nx_count 9\n";
        let other_samples = "x_count{id=\"b\"} 9\n";
        assert_eq!(
            merged(&[body, other]),
            format!(
                "# HELP x X\n# TYPE x histogram\n{samples}{other_samples}\
                 # TYPE x_count_total counter\nx_count_total{{id=\"b\"}} 1\n\
                 # TYPE x_counts untyped\nx_counts{{id=\"b\"}} 1\n"
            )
        );
    }

    #[test]
    fn the_first_help_is_written_and_none_is_made_up() {
        let page = merged(&[
            "x 1\ny 2\n# HELP z \nz 3\n",
            "# HELP x X\nx 4\n",
            "# HELP x Other\n",
        ]);
        let expected = r#"# HELP x X
# TYPE x untyped
x{id="a"} 1
x{id="b"} 4
# TYPE y untyped
y{id="a"} 2
# TYPE z untyped
z{id="a"} 3
"#;
        assert_eq!(page, expected);
    }

    #[test]
    fn a_type_may_come_after_its_samples() {
        let page = merged(&["x_sum 1\nx{quantile=\"0.5\"} 2\n# TYPE x summary\n"]);
        let end = "# TYPE x summary\nx_sum{id=\"a\"} 1\nx{quantile=\"0.5\",id=\"a\"} 2\n";
        assert!(page.ends_with(end), "{page}");
    }

    fn types(bodies: &[&str]) -> Vec<String> {
        merged(bodies)
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn most_pages_decide_the_type_and_then_the_first() {
        let (gauge, counter) = ("# TYPE x gauge\nx 1\n", "# TYPE x counter\nx 1\n");
        assert_eq!(types(&[gauge, counter]), ["x gauge"]);
        assert_eq!(types(&[counter, gauge]), ["x counter"]);
        assert_eq!(types(&[counter, gauge, gauge]), ["x gauge"]);
        assert_eq!(types(&["x 1\n", "x 1\n", counter]), ["x counter"]);
        assert_eq!(types(&["# TYPE x gauge\n# TYPE x counter\nx 1\n"]), ["x gauge"]);
    }

    #[test]
    fn samples_that_do_not_fit_the_type_make_it_untyped() {
        let histogram = "# TYPE x histogram\nx_bucket{le=\"1\"} 1\nx_sum 1\nx_count 1\n";
        let apart = [
            "x untyped",
            "x_bucket untyped",
            "x_count untyped",
            "x_sum untyped",
        ];
        assert_eq!(types(&[histogram, histogram, "# TYPE x gauge\nx 1\n"]), apart);
        assert_eq!(types(&[histogram, "x 1\n"]), apart);
        assert_eq!(types(&[histogram, "x_bucket 1\n"]), apart[1..]);
        assert_eq!(types(&[histogram, "x_bucket{le=\"high\"} 1\n"]), apart[1..]);
        assert_eq!(types(&[histogram, "x_sum{le=\"high\"} 1\n"]), apart[1..]);
        assert_eq!(
            types(&[histogram, "x_sum{le=\"1\"} 1\n", "x_count{quantile=\"?\"} 1\n"]),
            ["x histogram"]
        );

        let summary = "# TYPE x summary\nx{quantile=\"0.5\"} 1\nx_sum 1\nx_count 1\n";
        let apart = ["x untyped", "x_count untyped", "x_sum untyped"];
        assert_eq!(types(&[summary, "x{quantile=\"half\"} 1\n"]), apart);
        assert_eq!(types(&[summary, "x 1\n"]), apart);
        assert_eq!(
            types(&[summary, "x_bucket 1\n"]),
            ["x summary", "x_bucket untyped"]
        );
        // The gauge is chosen, so the histogram's samples are families of their own.
        assert_eq!(
            types(&["# TYPE x gauge\nx 1\n", histogram]),
            ["x gauge", "x_bucket untyped", "x_count untyped", "x_sum untyped"]
        );
    }

    #[test]
    fn a_family_named_like_a_histograms_sample() {
        let histogram = "# TYPE x histogram\nx_bucket{le=\"1\"} 1\nx_sum 1\nx_count 1\n";
        let sum = "# HELP x_sum S\n# TYPE x_sum gauge\nx_sum 2\n";
        assert_eq!(types(&[histogram, sum]), ["x histogram"]);
        assert_eq!(types(&[sum, histogram]), ["x histogram"]);
        assert_eq!(
            types(&[histogram, sum, sum]),
            ["x_bucket untyped", "x_count untyped", "x_sum gauge"]
        );
        let nested = "# TYPE x_sum histogram\nx_sum_bucket{le=\"1\"} 1\nx_sum_sum 1\n";
        assert_eq!(
            types(&[histogram, nested]),
            ["x histogram", "x_sum_bucket untyped", "x_sum_sum untyped"]
        );
        assert_eq!(
            types(&[histogram, nested, nested]),
            [
                "x_bucket untyped",
                "x_count untyped",
                // The sum of the first histogram cannot be in another one.
                "x_sum untyped",
                "x_sum_bucket untyped",
                "x_sum_sum untyped",
            ]
        );
    }

    /// Without samples it is left out: its TYPE line alone would be read as one of `x`.
    #[test]
    fn a_family_without_samples_named_like_a_histograms_sample() {
        let histogram = "# TYPE x histogram\nx_bucket{le=\"1\"} 1\n";
        let nested = "# TYPE x_sum histogram\nx_sum_bucket{le=\"1\"} 1\n";
        assert_eq!(
            types(&[histogram, nested]),
            ["x histogram", "x_sum_bucket untyped"]
        );
    }

    #[test]
    fn the_filter_sees_names_with_their_prefix() {
        let page = |body: &'static str| {
            Page::read(body, Relabel::default().prefix("shim_", ["go_"]).unwrap()).unwrap()
        };
        let body = "go_x 1\nshim_go_y 2\n# TYPE app_h histogram\napp_h_sum 3\n";
        let filtered = |filter: &str| {
            let bytes = Merge::new(vec![page(body)], &Filter::parse(filter)).into_bytes();
            let text = String::from_utf8(bytes).unwrap();
            text.lines()
                .filter_map(|line| Some(line.strip_prefix("# TYPE ")?.to_owned()))
                .collect::<Vec<_>>()
        };
        assert_eq!(filtered("shim_go_"), ["shim_go_x untyped", "shim_go_y untyped"]);
        assert_eq!(filtered("go_"), Vec::<String>::new());
        assert_eq!(
            filtered("app_h,shim_go_y"),
            ["app_h histogram", "shim_go_y untyped"]
        );
        assert_eq!(filtered("app_h_sum"), Vec::<String>::new());
    }
}
