use std::collections::BTreeMap;

use lakehouse_core::model::{MetadataPart, Upkeep};
use lakehouse_core::operations::health::{Day, SizeClass};

use super::*;

/// What would be a script, an attribute, an end of something, if it were not escaped.
const HOSTILE: [&str; 6] = [
    "<script>alert(1)</script>",
    "\" onload=\"alert(1)",
    "' onload='alert(1)",
    "</title></svg></style><img src=x onerror=alert(1)>",
    "&lt;b&gt; & \u{202e}drawkcab\u{0}\u{7}",
    "]]>--><!-- {{x}} ${x}",
];

fn files(files: u64) -> Files {
    Files {
        files,
        bytes: files * 1_000_000,
        rows: files * 100,
        masked_rows: files * 7,
    }
}

fn figures(partitions: Vec<(String, Files)>, days: Vec<Day>) -> Health {
    Health {
        version: 7,
        timestamp_ms: 1_370_000_000_000,
        taken_ms: 1_370_100_000_000,
        files: files(30),
        masked_files: 3,
        masked_exact: true,
        target_file_bytes: 512 << 20,
        small_files: files(20),
        sizes: [Some(1 << 20), Some(8 << 20), None]
            .into_iter()
            .enumerate()
            .map(|(at, below)| SizeClass {
                below,
                files: files(at as u64 * 10),
            })
            .collect(),
        partitioning: vec!["region".to_owned()],
        partitions,
        upkeep: Upkeep {
            read: vec![MetadataPart {
                kind: "manifests",
                objects: 2,
                bytes: 9000,
            }],
            objects: 12,
            bytes: 90_000,
            checkpoint_ms: Some(1_370_000_000_000),
            log: None,
        },
        versions: 7,
        days,
        to_compact: files(4),
        maintenance: Vec::new(),
        not_maintained: None,
    }
}

fn day(day: &str, commits: &[(&str, u64)]) -> Day {
    Day {
        day: day.to_owned(),
        commits: commits
            .iter()
            .map(|(kind, count)| ((*kind).to_owned(), *count))
            .collect::<BTreeMap<_, _>>(),
    }
}

/// Tags in the order of the page, with their attributes; the page is well-formed as far as they are concerned.
fn tags(html: &str) -> Vec<(String, Vec<(String, String)>)> {
    const VOID: [&str; 3] = ["meta", "!DOCTYPE", "br"];
    let mut open: Vec<String> = Vec::new();
    let mut found = Vec::new();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(
                open.pop().as_deref(),
                Some(name),
                "tags are closed in their order"
            );
            continue;
        }
        let own_end = tag.ends_with('/');
        let tag = tag.trim_end_matches('/');
        let (name, mut text) = tag.split_once(' ').unwrap_or((tag, ""));
        let mut attributes = Vec::new();
        while let Some((key, after)) = text.split_once("=\"") {
            let (value, after) = after.split_once('"').expect("an attribute ends");
            attributes.push((key.trim().to_owned(), value.to_owned()));
            text = after;
        }
        if !own_end && !VOID.contains(&name) {
            open.push(name.to_owned());
        }
        found.push((name.to_owned(), attributes));
    }
    assert_eq!(open, Vec::<String>::new(), "everything is closed");
    found
}

#[test]
fn names_of_tables_partitions_and_operations_inject_no_markup() {
    for hostile in HOSTILE {
        let partitions = vec![(hostile.to_owned(), files(3)), (format!("x{hostile}"), files(1))];
        let mut health = figures(partitions, vec![day("2013-01-01", &[(hostile, 3)])]);
        health.partitioning = vec![hostile.to_owned()];
        let harmless = figures(
            vec![("a".to_owned(), files(3)), ("b".to_owned(), files(1))],
            vec![day("2013-01-01", &[("append", 3)])],
        );
        let html = page(hostile, hostile, &health);
        let names = |html: &str| -> Vec<(String, Vec<String>)> {
            let named = tags(html).into_iter();
            named
                .map(|(name, all)| (name, all.into_iter().map(|(key, _)| key).collect()))
                .collect()
        };
        assert_eq!(
            names(&html),
            names(&page("t", "iceberg", &harmless)),
            "{hostile:?}"
        );
        assert!(
            !html.contains('\u{202e}') && !html.contains('\u{0}'),
            "{hostile:?}"
        );
    }
}

#[test]
fn the_page_holds_all_that_it_needs_and_fetches_nothing() {
    let health = figures(
        vec![("region = eu".to_owned(), files(3))],
        vec![
            day("2013-01-01", &[("append", 3)]),
            day("2013-01-02", &[("append", 1), ("merge", 2)]),
        ],
    );
    let html = page("flights", "delta", &health);
    let tags = tags(&html);
    for (name, attributes) in &tags {
        let fetching = ["script", "link", "img", "iframe", "object", "image", "use", "a"];
        assert!(!fetching.contains(&name.as_str()), "{name}");
        assert!(
            attributes
                .iter()
                .all(|(key, _)| !key.starts_with("on") && key != "href" && key != "src"),
            "{name}"
        );
    }
    assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("url("));
    for wanted in [
        "prefers-color-scheme:dark",
        "width=device-width",
        "max-width",
        "viewBox",
    ] {
        assert!(html.contains(wanted), "{wanted}");
    }
    let charts = tags.iter().filter(|(name, _)| name == "figure").count();
    assert_eq!(
        charts, 5,
        "sizes, bytes and rows per partition, masked rows, commits"
    );
}

/// The numbers of the attributes of rectangles.
fn rectangles(html: &str) -> Vec<[f64; 4]> {
    let rectangles = tags(html).into_iter().filter(|(name, _)| name == "rect");
    let numbers = rectangles.map(|(_, attributes)| {
        ["x", "y", "width", "height"].map(|wanted| {
            let found = attributes
                .iter()
                .find(|(key, _)| key == wanted)
                .expect("an attribute");
            found.1.parse().expect("a number")
        })
    });
    numbers.collect()
}

/// The widths of bars, in percent of the longest.
fn widths(html: &str) -> Vec<f64> {
    let bars = tags(html).into_iter().filter(|(name, _)| name == "i");
    let style = bars.flat_map(|(_, attributes)| attributes);
    let widths = style.filter_map(|(_, style)| {
        let width = style.strip_prefix("width:")?.split('%').next()?;
        Some(width.parse().expect("a number"))
    });
    widths.collect()
}

#[test]
fn names_that_begin_alike_are_cut_in_the_middle() {
    let name = |end: u64| format!("{}{end}", "x".repeat(300));
    let short = |end| short(&name(end), 20);
    assert_eq!(short(1).chars().count(), 20);
    assert_ne!(short(1), short(2));
    let health = figures((0..30).map(|end| (name(end), files(end))).collect(), Vec::new());
    let html = page(&name(0), "delta", &health);
    assert!(html.contains("\u{2026}x") && tags(&html).len() > 100);
}

#[test]
fn charts_say_what_they_leave_out() {
    let partitions = |count: u64| -> Vec<(String, Files)> {
        (0..count)
            .map(|n| (format!("region = {n}"), files(n + 1)))
            .collect()
    };
    let html = |count| {
        page(
            "t",
            "delta",
            &figures(partitions(count), vec![day("2013-01-31", &[("append", 1)])]),
        )
    };
    let said = [
        "The 20 largest are drawn",
        "The 20 partitions with the most of them are drawn, of 21",
    ];
    let (all, some) = (html(20), html(21));
    assert!(said.iter().all(|what| some.contains(what) && !all.contains(what)));
    assert!(!some.contains("newest"), "one day is drawn");
}

#[test]
fn a_number_keeps_its_unit_beside_it() {
    assert_eq!(
        whole("10 files of 279.4 GB (0.0 %), 5 Big ones of 1 B"),
        "10 files of 279.4\u{a0}GB (0.0\u{a0}%), 5\u{a0}Big ones of 1\u{a0}B"
    );
}

#[test]
fn bars_are_as_long_as_their_figures() {
    let bar = |value: f64| Bar {
        label: "l".to_owned(),
        parts: vec![(0, value), (1, value)],
        note: String::new(),
        title: String::new(),
    };
    let chart = bars("c", &[bar(10.0), bar(5.0), bar(0.0), bar(f64::NAN), bar(-1.0)]);
    let drawn = widths(&chart);
    assert_eq!(
        drawn,
        [50.0, 50.0, 25.0, 25.0],
        "what is nothing is not drawn: {chart}"
    );
    assert_eq!(
        tags(&chart).iter().filter(|(name, _)| name == "div").count(),
        5,
        "{chart}"
    );
    let empty = figures(Vec::new(), Vec::new());
    tags(&page("empty", "iceberg", &empty));
}

#[test]
fn columns_of_commits_are_stacked_to_the_height_of_the_busiest_day() {
    let all: Vec<Day> = (1..=80)
        .map(|n| day(&format!("day {n}"), &[("append", n), ("merge", n)]))
        .collect();
    let html = days(&figures(Vec::new(), all));
    let drawn = rectangles(&html);
    assert_eq!(drawn.len(), 2 * MOST_DAYS);
    let highest = drawn.iter().map(|[_, y, ..]| *y).fold(f64::MAX, f64::min);
    assert!((highest - 6.0).abs() < 0.2, "{highest}");
    assert!(
        drawn
            .iter()
            .all(|[x, y, width, height]| *x >= 0.0 && x + width <= WIDTH && y + height <= 180.3)
    );
    assert!(
        html.contains("day 21") && !html.contains("day 20<"),
        "the newest are drawn"
    );
    assert!(
        html.contains("of 80 days with commits the newest 60 are drawn"),
        "{html}"
    );
}
