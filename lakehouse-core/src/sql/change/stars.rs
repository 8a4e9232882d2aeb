//! `UPDATE SET *` and `INSERT *` in a MERGE: the parser does not know them, so they are rewritten into
//! something that it knows and no one writes.

use datafusion::sql::sqlparser::tokenizer::{Token, Word};

use super::super::travel::is_word;
use crate::error::{Error, Result};

/// Stands for all columns: `SET "__lakehouse_all" = 1`, `INSERT ("__lakehouse_all") VALUES (1)`.
pub(in crate::sql) const ALL: &str = "__lakehouse_all";

/// Rewrites both forms where they stand in a clause. Tokens are without white space.
///
/// # Errors
/// [`Error::Unsupported`] for `DO NOTHING`, which the parser would not name.
pub(in crate::sql) fn rewrite(tokens: Vec<Token>) -> Result<Vec<Token>> {
    if !tokens.iter().any(|token| is_word(Some(token), "MERGE")) {
        return Ok(tokens);
    }
    if tokens
        .iter()
        .any(|t| matches!(t, Token::Word(word) if word.value == ALL))
    {
        return Err(Error::unsupported(
            format!("a column called {ALL} cannot be used in a MERGE"),
            "rename the column",
        ));
    }
    let number = || Token::Number("1".to_owned(), false);
    let all = || {
        Token::Word(Word {
            value: ALL.to_owned(),
            quote_style: Some('"'),
            keyword: datafusion::sql::sqlparser::keywords::Keyword::NoKeyword,
        })
    };
    let mut rewritten = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let follows = |words: &[&str]| {
            words
                .iter()
                .enumerate()
                .all(|(i, word)| is_word(tokens.get(at + i), word))
        };
        let star = |i: usize| tokens.get(at + i) == Some(&Token::Mul) && ends(tokens.get(at + i + 1));
        if follows(&["THEN", "DO", "NOTHING"]) {
            return Err(Error::unsupported(
                "DO NOTHING cannot run in a MERGE",
                "leave the clause out, and say AND NOT (..) in those behind it",
            ));
        }
        let (taken, put): (usize, Vec<Token>) = if follows(&["THEN", "UPDATE", "SET"]) && star(3) {
            (4, vec![all(), Token::Eq, number()])
        } else if follows(&["THEN", "INSERT"]) && star(2) {
            let values = Token::make_keyword("VALUES");
            let put = vec![
                Token::LParen,
                all(),
                Token::RParen,
                values,
                Token::LParen,
                number(),
                Token::RParen,
            ];
            (3, put)
        } else {
            (1, vec![tokens[at].clone()])
        };
        if taken > 1 {
            rewritten.extend_from_slice(&tokens[at..at + taken - 1]);
        }
        rewritten.extend(put);
        at += taken;
    }
    Ok(rewritten)
}

/// Whether a clause of a MERGE ends here.
fn ends(next: Option<&Token>) -> bool {
    matches!(next, None | Some(Token::EOF | Token::SemiColon))
        || ["WHEN", "OUTPUT", "RETURNING"]
            .iter()
            .any(|word| is_word(next, word))
}
