//! How long a chain of operators may be, in text that a parser is about to take apart.
//!
//! Parsers bound nesting by parentheses; `a OR b OR c ..` nests as deeply as it is long, without any, and whatever
//! walks through it, be it only to free it, needs stack for every link.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::limits::{Limit, over};
use crate::error::{Error, Result};

/// Operators that may follow each other, those around a pair of parentheses included. A chain of 1200 `OR` was too
/// much for the stack of a thread of the runtime, without optimisation.
const MOST: u64 = 1000;

/// Whether a keyword holds what is before and what is after it together.
fn links_words(keyword: Keyword) -> bool {
    use Keyword as K;
    matches!(
        keyword,
        K::AND
            | K::OR
            | K::XOR
            | K::NOT
            | K::IS
            | K::IN
            | K::LIKE
            | K::ILIKE
            | K::RLIKE
            | K::REGEXP
            | K::SIMILAR
            | K::BETWEEN
            | K::DIV
            | K::COLLATE
            | K::AT
            | K::CASE
            | K::INTERVAL
            | K::ANY
            | K::ALL
            | K::EXISTS
            | K::UNION
            | K::EXCEPT
            | K::INTERSECT
            | K::JOIN
            | K::PRIOR
            | K::BINARY
    )
}

/// Refuses text of which one value is a chain of too many operators. Lists may be as long as they are.
///
/// # Errors
/// [`Error::Limit`].
pub fn check_chains<'a>(tokens: impl IntoIterator<Item = &'a Token>) -> Result<()> {
    // Of each open parenthesis, and of the text around all of them.
    let (mut open, mut links) = (vec![0], 0);
    for token in tokens {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => open.push(0),
            Token::RParen | Token::RBracket | Token::RBrace if open.len() > 1 => {
                links -= open.pop().unwrap_or(0);
                // What is in parentheses hangs on what follows too: `(a)(b)(c)`, `x[1][2]`.
                links += 1;
                *open.last_mut().unwrap_or(&mut 0) += 1;
            }
            // The branches of CASE are a list too.
            Token::Word(word) if matches!(word.keyword, Keyword::WHEN | Keyword::THEN | Keyword::ELSE) => {
                links -= open.last_mut().map(std::mem::take).unwrap_or(0);
            }
            Token::Comma | Token::SemiColon => links -= open.last_mut().map(std::mem::take).unwrap_or(0),
            Token::Whitespace(_)
            | Token::Period
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::EOF => {}
            Token::Word(word) if !links_words(word.keyword) => {}
            _ => {
                links += 1;
                *open.last_mut().unwrap_or(&mut 0) += 1;
            }
        }
        if links > MOST {
            return Err(too_long());
        }
    }
    Ok(())
}

fn too_long() -> Error {
    let what = "more operators in one expression; write long lists of values as `IN (..)`, or join a table";
    over(what, Limit::fixed(MOST), "")
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;

    fn check(text: &str) -> Result<()> {
        check_chains(&Tokenizer::new(&GenericDialect, text).tokenize().unwrap())
    }

    #[test]
    fn long_lists_pass_and_long_chains_do_not() {
        let most = MOST as usize;
        check(&format!("id IN ({})", vec!["-1"; 100_000].join(", "))).unwrap();
        check(&format!("VALUES {}", vec!["(1, -2, NULL)"; 100_000].join(", "))).unwrap();
        check(&vec!["t.id = 1"; most / 2].join(" OR ")).unwrap();
        let branches = "WHEN id = 1 THEN 'one' ".repeat(10_000);
        check(&format!("CASE {branches} ELSE '' END")).unwrap();
        for text in [
            vec!["id = 1"; most / 2 + 1].join(" OR "),
            vec!["x"; most + 2].join(" + "),
            "NOT ".repeat(most + 1),
            format!("1{}", "::int".repeat(most + 1)),
            format!("x{}", "[1]".repeat(most + 1)),
            format!("f(1, {}", vec!["x"; most + 2].join(" || ")),
        ] {
            let error = check(&text).unwrap_err().to_string();
            assert!(error.contains("1000"), "{error}");
        }
    }
}
