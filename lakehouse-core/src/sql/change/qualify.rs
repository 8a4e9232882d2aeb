//! Expressions of a statement as texts that the verbs take.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{AccessExpr, Expr, Ident, Query, Visit, VisitMut, Visitor, VisitorMut};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::super::statement;
use crate::error::{Error, Result};

/// Renames the qualifiers of columns: `t.id` becomes `target.id`, or `id`.
#[derive(Debug, Default)]
pub(super) struct Qualifiers {
    /// A name in the statement, and what stands in its place.
    renamed: Vec<(String, Option<&'static str>)>,
    /// Columns that mean this side where they have no qualifier.
    implied: Option<(&'static str, HashSet<String>)>,
}

impl Qualifiers {
    /// Columns of the one table `alias` lose their qualifier.
    pub(super) fn dropped(alias: &str) -> Self {
        Self::default().rename(alias, None)
    }

    /// `alias.x` becomes `to.x`.
    pub(super) fn rename(mut self, alias: &str, to: Option<&'static str>) -> Self {
        self.renamed.push((alias.to_owned(), to));
        self
    }

    /// The same where columns of these names that have no qualifier mean `side`.
    pub(super) fn implying(&self, side: &'static str, columns: impl IntoIterator<Item = String>) -> Self {
        Self {
            renamed: self.renamed.clone(),
            implied: Some((side, columns.into_iter().collect())),
        }
    }

    /// The expression as text.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a subquery; [`Error::Invalid`] for a table that the statement does not name.
    pub(super) fn text(&self, expr: &Expr, place: &'static str) -> Result<String> {
        let mut expr = expr.clone();
        let mut walk = Walk {
            qualifiers: self,
            place,
            held: Vec::new(),
        };
        if let ControlFlow::Break(error) = VisitMut::visit(&mut expr, &mut walk) {
            return Err(error);
        }
        text(&expr)
    }

    fn renamed(&self, name: &str) -> Option<Option<&'static str>> {
        let found = self.renamed.iter().find(|(alias, _)| alias == name)?;
        Some(found.1)
    }

    /// The parts of a name, qualified as the verbs want it.
    fn qualified(&self, mut parts: Vec<Ident>) -> Result<Vec<Ident>> {
        let Some(first) = parts.first().map(|part| part.value.clone()) else {
            return Ok(parts);
        };
        if parts.len() > 1 {
            match self.renamed(&first) {
                Some(Some(side)) => {
                    parts[0] = Ident::new(side);
                    return Ok(parts);
                }
                Some(None) => {
                    parts.remove(0);
                    return Ok(parts);
                }
                None if self.renamed.iter().any(|(_, to)| *to == Some(first.as_str())) => {
                    return Err(Error::invalid(
                        format!("the statement has no table called {first}"),
                        statement::spelled(&parts),
                    )
                    .with_hint("use the names or aliases that the statement gives its tables"));
                }
                None => {}
            }
        }
        if let Some((side, columns)) = &self.implied
            && columns.contains(&first)
        {
            parts.insert(0, Ident::new(*side));
        }
        Ok(parts)
    }
}

/// The expression as text that is understood as this expression again.
pub(super) fn text(expr: &Expr) -> Result<String> {
    let text = expr.to_string();
    let again = statement::parser(&text).and_then(|mut parser| {
        let again = parser.parse_expr()?;
        Ok((parser.peek_token_ref().token == Token::EOF).then_some(again))
    });
    match again {
        Ok(Some(again)) if again == *expr => Ok(text),
        _ => Err(Error::unsupported(
            format!("this expression cannot run here: {text}"),
            "put parentheses around its parts",
        )),
    }
}

struct Walk<'a> {
    qualifiers: &'a Qualifiers,
    place: &'static str,
    /// Expressions that are done, each taken out while the walk goes over what stands in its place.
    held: Vec<Expr>,
}

impl Walk<'_> {
    /// `alias.list[1].x`: only the first two parts can be a qualified column; indices are expressions.
    fn field_access(&mut self, root: &mut Expr, chain: &mut Vec<AccessExpr>) -> ControlFlow<Error> {
        if let Expr::Identifier(first) = root {
            let mut parts = vec![first.clone()];
            while let Some(AccessExpr::Dot(Expr::Identifier(next))) = chain.first() {
                parts.push(next.clone());
                chain.remove(0);
            }
            let mut parts = match self.qualifiers.qualified(parts) {
                Ok(parts) => parts,
                Err(error) => return ControlFlow::Break(error),
            };
            // In the form that the parser gives it.
            *root = Expr::Identifier(parts.remove(0));
            let dots = parts
                .into_iter()
                .map(|part| AccessExpr::Dot(Expr::Identifier(part)));
            chain.splice(0..0, dots);
        } else {
            VisitMut::visit(root, self)?;
        }
        for access in chain {
            match access {
                AccessExpr::Subscript(subscript) => VisitMut::visit(subscript, self)?,
                AccessExpr::Dot(Expr::Identifier(_)) => {}
                AccessExpr::Dot(other) => VisitMut::visit(other, self)?,
            }
        }
        ControlFlow::Continue(())
    }
}

/// Stands in the place of an expression that is held. No SQL can spell it.
const HELD: &str = "\0";

fn named(mut parts: Vec<Ident>) -> Expr {
    if parts.len() == 1 {
        Expr::Identifier(parts.remove(0))
    } else {
        Expr::CompoundIdentifier(parts)
    }
}

impl VisitorMut for Walk<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        ControlFlow::Break(Error::unsupported(
            format!("a subquery cannot be used in {}", self.place),
            "join what it finds to the source, and use its columns",
        ))
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let parts = match expr {
            Expr::Identifier(one) => vec![one.clone()],
            Expr::CompoundIdentifier(parts) => parts.clone(),
            Expr::CompoundFieldAccess { root, access_chain } => {
                self.field_access(root, access_chain)?;
                let done = std::mem::replace(expr, Expr::Identifier(Ident::new(HELD)));
                self.held.push(done);
                return ControlFlow::Continue(());
            }
            _ => return ControlFlow::Continue(()),
        };
        match self.qualifiers.qualified(parts) {
            Ok(parts) => {
                *expr = named(parts);
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        // Two signs in a row would begin a comment.
        if let Expr::UnaryOp { expr: inner, .. } = expr
            && matches!(inner.as_ref(), Expr::UnaryOp { .. })
        {
            let signed = inner.as_ref().clone();
            **inner = Expr::Nested(Box::new(signed));
        }
        if matches!(expr, Expr::Identifier(ident) if ident.value == HELD)
            && let Some(done) = self.held.pop()
        {
            *expr = done;
        }
        ControlFlow::Continue(())
    }
}

/// Whether there is a query inside.
pub(super) fn has_subquery(part: &impl Visit) -> bool {
    struct Look;
    impl Visitor for Look {
        type Break = ();
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    part.visit(&mut Look).is_break()
}

/// Whether every column in it is qualified by `alias`.
fn only_of(expr: &Expr, alias: &str) -> bool {
    struct Look<'a>(&'a str);
    impl Visitor for Look<'_> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::CompoundIdentifier(parts) if parts.first().is_some_and(|p| p.value == self.0) => {
                    ControlFlow::Continue(())
                }
                Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::CompoundFieldAccess { .. } => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Look(alias)).is_continue()
}

/// What a condition says about the table `alias` alone, as text over its columns; nothing if that is
/// nothing. With `others` in the statement only qualified columns are known to be the table's.
pub(super) fn narrow(condition: Option<&Expr>, alias: &str, others: bool) -> Option<String> {
    let mut parts = Vec::new();
    conjuncts(condition?, &mut parts);
    let qualifiers = Qualifiers::dropped(alias);
    let texts: Vec<String> = parts
        .into_iter()
        .filter(|part| !has_subquery(*part) && (!others || only_of(part, alias)))
        .filter_map(|part| qualifiers.text(part, "a condition").ok())
        .map(|text| format!("({text})"))
        .collect();
    (!texts.is_empty()).then(|| texts.join(" AND "))
}

fn conjuncts<'a>(expr: &'a Expr, into: &mut Vec<&'a Expr>) {
    use datafusion::sql::sqlparser::ast::BinaryOperator;
    match expr {
        Expr::BinaryOp {
            left,
            op: BinaryOperator::And,
            right,
        } => {
            conjuncts(left, into);
            conjuncts(right, into);
        }
        Expr::Nested(inner) => conjuncts(inner, into),
        other => into.push(other),
    }
}
