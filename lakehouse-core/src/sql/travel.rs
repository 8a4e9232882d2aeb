//! Time travel in FROM. The engine's planner parses some of these clauses and ignores them, which would
//! read the newest version without a word; so they are taken out of the text before it is parsed.
//!
//! `t VERSION AS OF 3`, `t VERSION AS OF 'tag'`, `t TIMESTAMP AS OF '2026-01-01'`, each with `FOR` in
//! front if you like, and `t FOR SYSTEM_TIME AS OF TIMESTAMP '2026-01-01'`.

use datafusion::sql::sqlparser::keywords::{Keyword, RESERVED_FOR_TABLE_ALIAS};
use datafusion::sql::sqlparser::tokenizer::{Token, Word};

use crate::error::{Error, Result};
use crate::model::At;

/// A table at a version, under the name that stands for it in the rewritten query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Travel {
    pub(super) name: String,
    pub(super) table: String,
    /// The table was named in quotes.
    pub(super) quoted: bool,
    pub(super) at: At,
}

/// What to do about a clause that is not understood.
const HINT: &str = "write FROM t VERSION AS OF 3, FROM t VERSION AS OF 'tag', or \
                    FROM t TIMESTAMP AS OF '2026-01-01 00:00:00'";

/// Takes the clauses out: each table with one is replaced by a name of its own.
pub(super) fn take_out(tokens: Vec<Token>) -> Result<(Vec<Token>, Vec<Travel>)> {
    let tokens: Vec<Token> = tokens
        .into_iter()
        .filter(|t| !matches!(t, Token::Whitespace(_)))
        .collect();
    let mut rewritten: Vec<Token> = Vec::with_capacity(tokens.len());
    let mut travels: Vec<Travel> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let Some(clause) = Clause::at(&tokens, at) else {
            rewritten.push(tokens[at].clone());
            at += 1;
            continue;
        };
        let Some(start) = name_start(&rewritten) else {
            if clause.certain {
                return Err(misplaced("must follow a table's name, before its alias"));
            }
            rewritten.push(tokens[at].clone());
            at += 1;
            continue;
        };
        let (version, after) = value(&tokens, clause.value, clause.time)?;
        let parts: Vec<Token> = rewritten.split_off(start);
        let table: String = parts.iter().map(spelled).collect();
        if is_changed(&rewritten) {
            return Err(Error::unsupported(
                format!("an old version of {table} cannot be changed, only the newest"),
                "leave AS OF out here; the tables that the statement reads may have it",
            ));
        }
        let name = format!("{table} AS OF {}", described(&version));
        rewritten.push(quoted_word(&name));
        if !alias_follows(tokens.get(after)) {
            rewritten.push(Token::make_keyword("AS"));
            rewritten.push(quoted_word(&parts.last().map(spelled).unwrap_or_default()));
        }
        let quoted = match parts.as_slice() {
            [Token::SingleQuotedString(_)] => true,
            [Token::Word(word)] => word.quote_style.is_some(),
            _ => true,
        };
        travels.push(Travel {
            name,
            table,
            quoted,
            at: version,
        });
        at = after;
    }
    Ok((rewritten, travels))
}

/// `[FOR] VERSION | TIMESTAMP | SYSTEM_TIME | SYSTEM_VERSION AS OF`.
struct Clause {
    /// The token behind `OF`.
    value: usize,
    time: bool,
    /// It cannot be anything else.
    certain: bool,
}

impl Clause {
    fn at(tokens: &[Token], at: usize) -> Option<Self> {
        let certain = is_word(tokens.get(at), "FOR");
        let kind = if certain { at + 1 } else { at };
        let is = |word| is_word(tokens.get(kind), word);
        let time = is("TIMESTAMP") || is("SYSTEM_TIME");
        let known = time || is("VERSION") || is("SYSTEM_VERSION");
        let as_of = is_word(tokens.get(kind + 1), "AS") && is_word(tokens.get(kind + 2), "OF");
        (known && as_of).then_some(Self {
            value: kind + 3,
            time,
            certain,
        })
    }
}

/// Where the table's name starts that the tokens so far end with.
fn name_start(tokens: &[Token]) -> Option<usize> {
    let mut start = tokens.len().checked_sub(1)?;
    if !is_name(&tokens[start]) {
        return None;
    }
    while start >= 2 && tokens[start - 1] == Token::Period && is_name(&tokens[start - 2]) {
        start -= 2;
    }
    let before = tokens.get(start.checked_sub(1)?)?;
    let opens = ["FROM", "JOIN", "USING"]
        .iter()
        .any(|word| is_word(Some(before), word))
        || matches!(before, Token::Comma | Token::LParen)
        || is_changed(&tokens[..start]);
    opens.then_some(start)
}

/// Whether the table whose name follows these tokens is one that the statement changes.
fn is_changed(tokens: &[Token]) -> bool {
    let back = |n: usize, words: &[&str]| {
        let token = tokens.len().checked_sub(n).and_then(|at| tokens.get(at));
        words.iter().any(|word| is_word(token, word))
    };
    back(1, &["INTO", "OVERWRITE", "UPDATE", "DELETE", "MERGE", "TRUNCATE"])
        || back(1, &["FROM"]) && back(2, &["DELETE"])
        || back(1, &["TABLE"]) && back(2, &["INTO", "OVERWRITE", "TRUNCATE"])
}

fn is_name(token: &Token) -> bool {
    match token {
        Token::Word(word) => word.quote_style.is_some() || !RESERVED_FOR_TABLE_ALIAS.contains(&word.keyword),
        Token::SingleQuotedString(_) => true,
        _ => false,
    }
}

/// The version or time that follows `OF`, and the first token behind it.
fn value(tokens: &[Token], at: usize, time: bool) -> Result<(At, usize)> {
    if time {
        let typed = is_word(tokens.get(at), "TIMESTAMP") || is_word(tokens.get(at), "DATE");
        let at = if typed { at + 1 } else { at };
        return match tokens.get(at) {
            Some(Token::SingleQuotedString(text)) => Ok((At::Timestamp(parse_instant(text)?), at + 1)),
            other => Err(not_a_literal("a time in quotes", other)),
        };
    }
    let negative = tokens.get(at) == Some(&Token::Minus);
    let at = if negative { at + 1 } else { at };
    match tokens.get(at) {
        Some(Token::Number(digits, _)) => {
            let text = if negative {
                format!("-{digits}")
            } else {
                digits.clone()
            };
            let version = text
                .parse()
                .map_err(|_| Error::invalid(format!("{text} is no version"), "the query").with_hint(HINT))?;
            Ok((At::Version(version), at + 1))
        }
        Some(Token::SingleQuotedString(text)) if !negative => {
            let version = match text.parse() {
                Ok(version) => At::Version(version),
                Err(_) => At::Ref(text.clone()),
            };
            Ok((version, at + 1))
        }
        other => Err(not_a_literal("a number, or a tag or branch in quotes", other)),
    }
}

fn not_a_literal(expected: &str, found: Option<&Token>) -> Error {
    let found = found.map_or_else(|| "the end".to_owned(), Token::to_string);
    misplaced(&format!("needs {expected}, found {found}"))
}

fn misplaced(what: &str) -> Error {
    Error::invalid(format!("AS OF {what}"), "the query").with_hint(HINT)
}

/// An instant: a date, or a date and time, in UTC unless it names a zone. In milliseconds since 1970 UTC.
///
/// # Errors
/// [`Error::Invalid`] for anything else.
pub fn parse_instant(text: &str) -> Result<i64> {
    let nanoseconds =
        arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(text.trim()).map_err(|_| {
            Error::invalid(format!("{text:?} is not a time"), "")
                .with_hint("write 2026-01-31, '2026-01-31 12:00:00' (UTC) or 2026-01-31T12:00:00+02:00")
        })?;
    Ok(nanoseconds.div_euclid(1_000_000))
}

fn described(at: &At) -> String {
    match at {
        At::Latest => "now".to_owned(),
        At::Version(version) => version.to_string(),
        At::Timestamp(time) => format!("{time} ms"),
        At::Ref(name) => format!("'{name}'"),
    }
}

fn alias_follows(token: Option<&Token>) -> bool {
    match token {
        Some(Token::Word(word)) => {
            word.keyword == Keyword::AS
                || word.quote_style.is_some()
                || !RESERVED_FOR_TABLE_ALIAS.contains(&word.keyword)
        }
        _ => false,
    }
}

pub(super) fn is_word(token: Option<&Token>, expected: &str) -> bool {
    matches!(token, Some(Token::Word(word)) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected))
}

fn spelled(token: &Token) -> String {
    match token {
        Token::Word(word) => word.value.clone(),
        Token::SingleQuotedString(text) => text.clone(),
        other => other.to_string(),
    }
}

fn quoted_word(value: &str) -> Token {
    Token::Word(Word {
        value: value.to_owned(),
        quote_style: Some('"'),
        keyword: Keyword::NoKeyword,
    })
}
