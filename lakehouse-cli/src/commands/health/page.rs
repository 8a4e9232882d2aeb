//! The health of a table as one page: figures to HTML, nothing else. Charts are made of boxes and inline SVG, their text is
//! the page's, so that it is as large on a phone; nothing is fetched, no script runs, and every name is escaped.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use lakehouse_core::operations::health::{Files, Health};

use super::age;
use crate::values::{show_bytes, show_count, show_time};

/// Partitions that are drawn, largest first.
const MOST_PARTITIONS: usize = 20;
/// Days that are drawn, newest last.
const MOST_DAYS: usize = 60;
/// Kinds of commits with a colour of their own; the others share the last.
const COLOURS: usize = 7;

/// Characters of a name in a chart and in a table; the whole of it is shown on the pointer.
const MOST_LABEL: usize = 44;
const MOST_NAME: usize = 100;

/// The size that columns are drawn in; they are stretched to the page's width.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 180.0;

const STYLE: &str = "\
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--soft:#5c6670;--line:#d8dde3;--card:#f6f7f9;\
--c0:#3567b5;--c1:#2f8f5b;--c2:#c07a1c;--c3:#a33f6b;--c4:#6a55b0;--c5:#1f8a94;--c6:#8a8f96;--bad:#b3402e}\
@media(prefers-color-scheme:dark){:root{--paper:#14171a;--ink:#e6e9ec;--soft:#9aa4ae;--line:#333a41;--card:#1d2227;\
--c0:#7aa5e8;--c1:#6cc494;--c2:#e0a75a;--c3:#dd86ad;--c4:#a896e6;--c5:#62c2cb;--c6:#9aa0a8;--bad:#e5836f}}\
*{box-sizing:border-box}body{margin:0;padding:1.2rem;background:var(--paper);color:var(--ink);\
font:16px/1.5 system-ui,sans-serif}main{max-width:46rem;margin:0 auto}h1{font-size:1.4rem;overflow-wrap:anywhere;margin:0}\
h2{font-size:1.05rem;margin:2rem 0 .5rem}p{margin:.3rem 0;color:var(--soft);overflow-wrap:anywhere}\
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(10rem,1fr));gap:.6rem;margin:1rem 0}\
dl div{background:var(--card);border:1px solid var(--line);border-radius:.4rem;padding:.5rem .7rem}\
dt{color:var(--soft);font-size:.8rem}dd{margin:0;font-weight:600;overflow-wrap:anywhere}\
figure{margin:.4rem 0}.bars div{display:grid;grid-template-columns:minmax(0,12rem) minmax(0,1fr) minmax(0,9.5rem);\
gap:.6rem;align-items:center;font-size:.82rem;line-height:1.3;padding:.1rem 0}.bars span{text-align:right;\
overflow-wrap:anywhere}.bars b{display:flex;height:1.1rem;border-left:1px solid var(--line)}.bars i{min-width:1px}\
.bars em{font-style:normal;color:var(--soft);white-space:nowrap}\
@media(max-width:36rem){.bars div{grid-template-columns:minmax(0,1fr) auto;gap:.1rem .6rem;padding:.2rem 0}\
.bars span{text-align:left}.bars b{grid-column:1/-1;order:1}}\
svg{display:block;width:100%;height:11rem;border-bottom:1px solid var(--line)}\
.ends{display:flex;justify-content:space-between;color:var(--soft);font-size:.82rem}.ends :only-child{margin:auto}\
.wide{overflow-x:auto}\
table{border-collapse:collapse;width:100%;font-size:.9rem}td,th{padding:.25rem .5rem;border-bottom:1px solid var(--line);\
text-align:right;white-space:nowrap}td:first-child,th:first-child{text-align:left;white-space:normal;overflow-wrap:anywhere}\
.words td,.words th{text-align:left;white-space:normal;overflow-wrap:anywhere}.words td:first-child{white-space:nowrap}\
ul{list-style:none;display:flex;flex-wrap:wrap;gap:.3rem 1rem;padding:0;margin:.3rem 0}\
li i{display:inline-block;width:.8rem;height:.8rem;border-radius:.15rem;margin-right:.35rem;vertical-align:-.05rem}";

/// The page about a table of this name.
pub(super) fn page(name: &str, format: &str, health: &Health) -> String {
    let title = escape(name);
    let mut html = String::new();
    let _ = write!(
        html,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>Health of {title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n\
         <p>{} table, version {} of {} UTC; figures of {} UTC</p>\n",
        escape(format),
        health.version,
        show_time(health.timestamp_ms),
        show_time(health.taken_ms),
    );
    facts(&mut html, health);
    section(&mut html, "Maintenance", &maintenance(health));
    section(&mut html, "File sizes", &sizes(health));
    section(&mut html, "Partitions", &partitions(health));
    section(&mut html, "Masked rows", &masked(health));
    section(&mut html, "Versions", &days(health));
    section(&mut html, "Metadata", &metadata(health));
    html.push_str("</main>\n</body>\n</html>\n");
    html
}

/// Text that is nothing but text, also inside of an attribute. What would turn the direction of writing, or what cannot
/// be in a document at all, is shown as what it is.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                escaped.extend(c.escape_unicode());
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// A name where there is room for so many characters: names that begin alike differ at their ends, so that both are left.
fn short(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let tail = most / 2;
    let head: String = text.chars().take(most - tail - 1).collect();
    let tail: String = text.chars().skip(count - tail).collect();
    format!("{head}…{tail}")
}

/// `1 file`, `12 files`.
fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{} {what}s", show_count(count)),
    }
}

/// Text of which no line ends between a number and its unit: `279.4 GB`, `0.0 %`.
fn whole(text: &str) -> String {
    let mut whole = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let after_digit = whole.ends_with(|before: char| before.is_ascii_digit());
        let before_unit = rest.peek().is_some_and(|next| "BKMGT%".contains(*next));
        whole.push(if c == ' ' && after_digit && before_unit {
            '\u{a0}'
        } else {
            c
        });
    }
    whole
}

fn section(html: &mut String, title: &str, content: &str) {
    let _ = write!(html, "<section>\n<h2>{title}</h2>\n{content}</section>\n");
}

/// Headline figures.
fn facts(html: &mut String, health: &Health) {
    html.push_str("<dl>\n");
    for (name, value) in super::facts(health) {
        let _ = writeln!(
            html,
            "<div><dt>{}</dt><dd>{}</dd></div>",
            escape(name),
            escape(&whole(&value))
        );
    }
    html.push_str("</dl>\n");
}

/// What `lake maintain` would do.
fn maintenance(health: &Health) -> String {
    let mut html = String::from(
        "<div class=\"wide\"><table class=\"words\"><tr><th>lake maintain</th><th>would do</th></tr>\n",
    );
    for line in super::maintenance(health) {
        html.push_str("<tr>");
        for cell in line {
            let _ = write!(html, "<td>{}</td>", escape(&cell));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table></div>\n");
    html
}

/// One line of a chart of horizontal bars.
struct Bar {
    label: String,
    /// Lengths, stacked: colour and value.
    parts: Vec<(usize, f64)>,
    /// Behind the bar.
    note: String,
    /// On the pointer.
    title: String,
}

/// Horizontal bars below one another, with their labels. Values may be of any size; what is no number is 0.
fn bars(what: &str, bars: &[Bar]) -> String {
    let sound = |value: f64| {
        if value.is_finite() && value > 0.0 {
            value
        } else {
            0.0
        }
    };
    let sum = |bar: &Bar| bar.parts.iter().map(|(_, value)| sound(*value)).sum::<f64>();
    let most = bars.iter().map(sum).fold(0.0, f64::max);
    let mut html = format!("<figure class=\"bars\" aria-label=\"{}\">\n", escape(what));
    for bar in bars {
        let _ = write!(
            html,
            "<div title=\"{}\"><span>{}</span><b>",
            escape(&bar.title),
            escape(&short(&bar.label, MOST_LABEL))
        );
        for (colour, value) in bar.parts.iter().filter(|(_, value)| sound(*value) > 0.0) {
            let _ = write!(
                html,
                "<i style=\"width:{:.2}%;background:var(--c{colour})\"></i>",
                sound(*value) / most * 100.0
            );
        }
        let _ = writeln!(html, "</b><em>{}</em></div>", escape(&bar.note));
    }
    html.push_str("</figure>\n");
    html
}

fn legend(names: &[(usize, String)]) -> String {
    let mut html = "<ul>".to_owned();
    for (colour, name) in names {
        let _ = write!(
            html,
            "<li><i style=\"background:var(--c{colour})\"></i>{}</li>",
            escape(name)
        );
    }
    html.push_str("</ul>\n");
    html
}

/// Between which sizes each class lies: `16 KB to 128 KB`.
pub(super) fn class_names(health: &Health) -> Vec<String> {
    let mut from: Option<u64> = None;
    let names = health.sizes.iter().map(|class| {
        let name = match (from, class.below) {
            (None, Some(to)) => format!("below {}", show_bytes(to)),
            (Some(from), Some(to)) => format!("{} to {}", show_bytes(from), show_bytes(to)),
            (Some(from), None) => format!("{} and more", show_bytes(from)),
            (None, None) => "all".to_owned(),
        };
        from = class.below;
        name
    });
    names.collect()
}

fn sizes(health: &Health) -> String {
    if health.files.files == 0 {
        return "<p>There are no data files.</p>\n".to_owned();
    }
    let drawn = health.sizes.iter().zip(class_names(health)).map(|(class, name)| {
        let Files { files, bytes, .. } = class.files;
        let note = match files {
            0 => String::new(),
            files => format!("{}, {}", counted(files, "file"), show_bytes(bytes)),
        };
        Bar {
            title: format!("{name}: {}", counted(files, "file")),
            label: name,
            parts: vec![(0, files as f64)],
            note,
        }
    });
    let drawn: Vec<_> = drawn.collect();
    format!(
        "<p>Files are meant to have {}; {} of {} are smaller than three quarters of that.</p>\n{}",
        show_bytes(health.target_file_bytes),
        show_count(health.small_files.files),
        show_count(health.files.files),
        bars("how many files have which size", &drawn)
    )
}

fn label(name: &str) -> &str {
    if name.is_empty() { "the whole table" } else { name }
}

fn partitions(health: &Health) -> String {
    let all = health.partitions.len();
    if all == 0 {
        return "<p>There are no data files.</p>\n".to_owned();
    }
    let shown = &health.partitions[..all.min(MOST_PARTITIONS)];
    let chart = |what: &str, colour: usize, value: fn(&Files) -> u64, show: fn(u64) -> String| {
        let drawn = shown.iter().map(|(name, files)| {
            let note = show(value(files));
            Bar {
                label: label(name).to_owned(),
                parts: vec![(colour, value(files) as f64)],
                title: format!("{}: {note}", label(name)),
                note,
            }
        });
        let drawn: Vec<_> = drawn.collect();
        format!("<p>{}</p>\n{}", escape(what), bars(what, &drawn))
    };
    let mut html = match (health.partitioning.is_empty(), health.partitions.last()) {
        (true, _) | (_, None) => String::new(),
        (false, Some((smallest, files))) => format!(
            "<p>{} by {}; the smallest is {} with {} in {}{}</p>\n",
            counted(all as u64, "partition"),
            escape(&health.partitioning.join(", ")),
            escape(&short(label(smallest), MOST_NAME)),
            show_bytes(files.bytes),
            counted(files.files, "file"),
            if all > shown.len() {
                format!(". The {} largest are drawn", shown.len())
            } else {
                String::new()
            },
        ),
    };
    html.push_str(&chart("bytes per partition", 0, |files| files.bytes, show_bytes));
    html.push_str(&chart(
        "rows per partition",
        1,
        |files| files.rows,
        |rows| format!("{} rows", show_count(rows)),
    ));
    html.push_str("<div class=\"wide\"><table><tr><th>partition</th><th>files</th><th>rows</th><th>masked</th><th>bytes</th></tr>\n");
    for (name, files) in shown {
        let _ = writeln!(
            html,
            "<tr><td title=\"{}\">{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(label(name)),
            escape(&short(label(name), MOST_NAME)),
            show_count(files.files),
            show_count(files.rows),
            show_count(files.masked_rows),
            show_bytes(files.bytes)
        );
    }
    html.push_str("</table></div>\n");
    html
}

fn masked(health: &Health) -> String {
    let about = if health.masked_exact { "" } else { "at least " };
    let files = &health.files;
    let mut with: Vec<_> = health
        .partitions
        .iter()
        .filter(|(_, files)| files.masked_rows > 0)
        .collect();
    let all = with.len();
    with.sort_by_key(|(_, files)| std::cmp::Reverse(files.masked_rows));
    with.truncate(MOST_PARTITIONS);
    let drawn = with.into_iter().map(|(name, files)| {
        let visible = files.rows.saturating_sub(files.masked_rows);
        let note = format!("{} of {}", show_count(files.masked_rows), show_count(files.rows));
        Bar {
            label: label(name).to_owned(),
            parts: vec![(3, files.masked_rows as f64), (6, visible as f64)],
            title: format!("{}: {note} rows are masked", label(name)),
            note,
        }
    });
    let drawn: Vec<_> = drawn.collect();
    let more = match all > drawn.len() {
        true => format!(
            " The {} partitions with the most of them are drawn, of {}.",
            drawn.len(),
            show_count(all as u64)
        ),
        false => String::new(),
    };
    let mut html = format!(
        "<p>{about}{} of {} rows are masked ({:.1} %), in {}.{more}</p>\n",
        show_count(files.masked_rows),
        show_count(files.rows),
        files.masked_share() * 100.0,
        counted(health.masked_files, "file")
    );
    if !drawn.is_empty() {
        html.push_str(&legend(&[(3, "masked".to_owned()), (6, "visible".to_owned())]));
        html.push_str(&bars("masked rows per partition", &drawn));
    }
    html
}

/// Commits per day, stacked by kind, as columns side by side.
fn days(health: &Health) -> String {
    let days = &health.days[health.days.len().saturating_sub(MOST_DAYS)..];
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for (kind, count) in days.iter().flat_map(|day| &day.commits) {
        *kinds.entry(kind).or_default() += count;
    }
    let mut kinds: Vec<(&str, u64)> = kinds.into_iter().collect();
    kinds.sort_by(|(a, one), (b, other)| (other, a).cmp(&(one, b)));
    let colour = |kind: &str| {
        kinds
            .iter()
            .position(|(other, _)| *other == kind)
            .unwrap_or(COLOURS)
            .min(COLOURS - 1)
    };
    let sum = |day: &lakehouse_core::operations::health::Day| day.commits.values().sum::<u64>();
    let most = days.iter().map(sum).max().unwrap_or(0).max(1);
    let mut html = format!(
        "<p>{} in the history of main",
        counted(health.versions, "version")
    );
    if days.is_empty() {
        html.push_str("</p>\n");
        return html;
    }
    let _ = write!(html, ", at most {} on one day (UTC)", show_count(most));
    if health.days.len() > days.len() {
        let all = show_count(health.days.len() as u64);
        let _ = write!(
            html,
            "; of {all} days with commits the newest {} are drawn and counted",
            days.len()
        );
    }
    html.push_str("</p>\n");
    let named: Vec<_> = kinds
        .iter()
        .map(|(kind, count)| (colour(kind), format!("{kind} ({})", show_count(*count))))
        .collect();
    html.push_str(&legend(&named));
    let step = WIDTH / days.len() as f64;
    let width = (step * 0.8).min(48.0);
    let _ = writeln!(
        html,
        "<figure><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"commits per day\">"
    );
    for (at, day) in days.iter().enumerate() {
        let x = step * at as f64 + (step - width) / 2.0;
        let words: Vec<_> = day
            .commits
            .iter()
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        let _ = writeln!(
            html,
            "<g><title>{}</title>",
            escape(&format!("{}: {}", day.day, words.join(", ")))
        );
        let mut top = HEIGHT;
        for (kind, count) in &day.commits {
            let height = (HEIGHT - 6.0) * *count as f64 / most as f64;
            top -= height;
            let _ = writeln!(
                html,
                "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"var(--c{})\"/>",
                colour(kind)
            );
        }
        html.push_str("</g>\n");
    }
    html.push_str("</svg>\n<div class=\"ends\">");
    let ends = match days {
        [first, .., last] => vec![first, last],
        days => days.iter().collect(),
    };
    for day in ends {
        let _ = write!(html, "<span>{}</span>", escape(&day.day));
    }
    html.push_str("</div></figure>\n");
    html
}

fn metadata(health: &Health) -> String {
    let mut html = String::from(
        "<div class=\"wide\"><table><tr><th>read to plan a scan</th><th>objects</th><th>bytes</th></tr>\n",
    );
    let mut line = |kind: &str, objects: u64, bytes: u64| {
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(kind),
            show_count(objects),
            show_bytes(bytes)
        );
    };
    for part in &health.upkeep.read {
        line(part.kind, part.objects, part.bytes);
    }
    line(
        "all, of every version",
        health.upkeep.objects,
        health.upkeep.bytes,
    );
    html.push_str("</table></div>\n");
    if let Some(at) = health.upkeep.checkpoint_ms {
        let old = age(health.taken_ms.saturating_sub(at));
        let _ = writeln!(html, "<p>The checkpoint is {old} old.</p>");
    }
    html
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
