//! From a predicate to what it demands of minima, maxima, NULL counts and buckets.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt64Array};
use arrow::compute::kernels::cmp;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::{split_binary, split_conjunction};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, Volatility};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};
use datafusion::scalar::ScalarValue;

use super::evidence::Witness;
use super::outlines::Known;
use crate::error::{Error, Result};
use crate::model::floats::AS_COMPARED;
use crate::model::schema::is_utc;

/// Alternatives that are looked at one by one; more of them are looked at together, by ranges of values only.
const MOST_ALTERNATIVES: usize = 64;

/// A predicate that can skip something.
#[derive(Debug)]
pub(super) struct Analysed {
    predicate: Node,
    /// Columns that it looks at, with their types; `a.b` inside structs.
    columns: Vec<(String, DataType)>,
}

/// AND and OR are taken apart here: the engine looks for values that a row must have (which buckets exclude, and long
/// lists) in a conjunction, not beside OR.
#[derive(Debug)]
enum Node {
    /// A row meets each of these.
    All(Vec<Node>),
    /// A row meets one of these.
    Any(Vec<Node>),
    Leaf(Box<PruningPredicate>),
}

impl Node {
    /// `None` if it can skip nothing.
    fn new(expr: &Expr, flat: &SchemaRef, df_schema: &DFSchema) -> Option<Self> {
        if let Expr::BinaryExpr(BinaryExpr {
            op: Operator::And, ..
        }) = expr
        {
            let parts = split_conjunction(expr).into_iter();
            let parts: Vec<Self> = parts
                .filter_map(|part| Self::new(part, flat, df_schema))
                .collect();
            return (!parts.is_empty()).then_some(Self::All(parts));
        }
        let alternatives = split_binary(expr, Operator::Or);
        if (2..=MOST_ALTERNATIVES).contains(&alternatives.len()) {
            let alternatives = alternatives.into_iter();
            let alternatives = alternatives.map(|part| Self::new(part, flat, df_schema));
            return alternatives.collect::<Option<_>>().map(Self::Any);
        }
        let physical = physical(expr, df_schema)?;
        let built = PruningPredicateBuilder::new()
            .with_file_schema(Arc::clone(flat))
            .try_build(physical);
        let predicate = built.ok().filter(|predicate| !predicate.always_true())?;
        Some(Self::Leaf(Box::new(predicate)))
    }

    fn columns(&self, names: &mut BTreeSet<String>) {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.columns(names)),
            Self::Leaf(predicate) => {
                let columns = collect_columns(predicate.orig_expr()).into_iter();
                names.extend(columns.map(|column| column.name().to_owned()));
            }
        }
    }

    /// Which containers may hold a row that meets it.
    fn keep(&self, containers: &Containers<'_>) -> Vec<bool> {
        let count = containers.num_containers();
        match self {
            Self::All(parts) => parts.iter().fold(vec![true; count], |mut keep, part| {
                let also = part.keep(containers);
                keep.iter_mut().zip(also).for_each(|(keep, also)| *keep &= also);
                keep
            }),
            Self::Any(parts) => parts.iter().fold(vec![false; count], |mut keep, part| {
                let also = part.keep(containers);
                keep.iter_mut().zip(also).for_each(|(keep, also)| *keep |= also);
                keep
            }),
            // Bounds are not values: a cast of one may fail although no row is like it. Then nothing is known.
            Self::Leaf(predicate) => predicate.prune(containers).unwrap_or_else(|_| vec![true; count]),
        }
    }
}

fn physical(expr: &Expr, schema: &DFSchema) -> Option<Arc<dyn PhysicalExpr>> {
    create_physical_expr(
        expr,
        schema,
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )
    .ok()
}

impl Analysed {
    /// `None` if no part of the predicate can skip anything.
    ///
    /// # Errors
    /// When the predicate names a column that the schema lacks.
    pub(super) fn new(predicate: &Expr, schema: &SchemaRef) -> Result<Option<Self>> {
        check_columns(predicate, schema)?;
        let flat = flattened(schema);
        let Ok(df_schema) = DFSchema::try_from(Arc::clone(&flat)) else {
            return Ok(None);
        };
        let df_schema = Arc::new(df_schema);
        let context = SimplifyContext::builder()
            .with_schema(Arc::clone(&df_schema))
            .build();
        let simplifier = ExprSimplifier::new(context);
        // A row must meet every part: each one that is understood may skip.
        let parts = split_conjunction(predicate).into_iter().filter_map(|part| {
            let plain = plain(part, &flat)?;
            let coerced = simplifier.coerce(plain, &df_schema).ok()?;
            if !in_whole_units(&coerced, &flat) {
                return None;
            }
            let part = simplifier.simplify(coerced).ok()?;
            (keeps_order(&part, &df_schema) && physical(&part, &df_schema).is_some()).then_some(part)
        });
        let nodes = parts.filter_map(|part| Node::new(&part, &flat, &df_schema));
        let predicate = Node::All(nodes.collect());
        if matches!(&predicate, Node::All(nodes) if nodes.is_empty()) {
            return Ok(None);
        }
        let mut names = BTreeSet::new();
        predicate.columns(&mut names);
        let columns = names.into_iter().filter_map(|name| {
            let data_type = flat.field_with_name(&name).ok()?.data_type().clone();
            Some((name, data_type))
        });
        Ok(Some(Self {
            columns: columns.collect(),
            predicate,
        }))
    }

    /// The columns that it looks at.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(name, _)| name.as_str())
    }

    /// Which containers may hold a row that meets the predicate.
    pub(super) fn keep(&self, witness: &Witness<'_>) -> Result<Vec<bool>> {
        let rows = witness.rows();
        let known: HashMap<&str, Known> = self
            .columns
            .iter()
            .filter(|(name, _)| witness.knows(name))
            .map(|(name, data_type)| Ok((name.as_str(), witness.known(name, data_type, &rows)?)))
            .collect::<Result<_>>()?;
        // A constant predicate skips without evidence.
        if known.is_empty() && !self.columns.is_empty() {
            return Ok(vec![true; rows.len()]);
        }
        let containers = Containers {
            witness,
            known,
            rows: Arc::new(UInt64Array::from(rows)),
        };
        Ok(self.predicate.keep(&containers))
    }
}

/// Every column must be there: a misspelt name would silently read the whole table.
fn check_columns(predicate: &Expr, schema: &Schema) -> Result<()> {
    let mut names: Vec<&str> = predicate
        .column_refs()
        .into_iter()
        .map(|column| column.name.as_str())
        .filter(|name| schema.field_with_name(name).is_err())
        .collect();
    names.sort_unstable();
    match names.first() {
        None => Ok(()),
        Some(name) => {
            let columns: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            Err(Error::invalid(
                format!("column '{name}' is not in the table"),
                predicate.to_string(),
            )
            .with_hint(format!("the table's columns are {}", columns.join(", "))))
        }
    }
}

/// The schema with the fields inside structs as columns of their own, `a.b`.
fn flattened(schema: &SchemaRef) -> SchemaRef {
    fn below(name: &str, fields: &arrow::datatypes::Fields, out: &mut Vec<Field>) {
        for field in fields {
            let name = format!("{name}.{}", field.name());
            match field.data_type() {
                DataType::Struct(children) => below(&name, children, out),
                data_type => out.push(Field::new(name, data_type.clone(), true)),
            }
        }
    }
    let mut nested = Vec::new();
    for field in schema.fields() {
        if let DataType::Struct(children) = field.data_type() {
            below(field.name(), children, &mut nested);
        }
    }
    nested.retain(|field| schema.field_with_name(field.name()).is_err());
    let fields = schema.fields().iter().map(|f| f.as_ref().clone()).chain(nested);
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The expression with plain column names and fields inside structs as columns; `None` if its value
/// depends on more than the row.
fn plain(expr: &Expr, schema: &Schema) -> Option<Expr> {
    let mut fixed = true;
    let plain = expr
        .clone()
        .transform_down(|node| {
            let node = spelled_as_stored(node);
            fixed &= match &node {
                Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
                | Expr::ScalarSubquery(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::Placeholder(_) => false,
                // The time of planning is not the time of reading.
                Expr::ScalarFunction(call) => call.func.signature().volatility == Volatility::Immutable,
                _ => true,
            };
            Ok(match &node {
                Expr::Column(column) if column.relation.is_some() => {
                    Transformed::yes(Expr::Column(Column::from_name(column.name.clone())))
                }
                Expr::ScalarFunction(_) => match path(&node).filter(|p| schema.field_with_name(p).is_ok()) {
                    Some(path) => Transformed::new(
                        Expr::Column(Column::from_name(path)),
                        true,
                        TreeNodeRecursion::Jump,
                    ),
                    None => Transformed::no(node),
                },
                _ => Transformed::no(node),
            })
        })
        .ok()?
        .data;
    fixed.then_some(plain)
}

/// A value as it is stored, of one that is spelled as it is compared: bounds have zeros of either sign, and none are looked
/// at where there are NaNs.
fn spelled_as_stored(expr: Expr) -> Expr {
    match expr {
        Expr::ScalarFunction(mut call) if call.name() == AS_COMPARED && call.args.len() == 1 => {
            spelled_as_stored(call.args.remove(0))
        }
        other => other,
    }
}

/// `a.b` for `get_field(a, 'b')`.
fn path(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Column(column) => Some(column.name.clone()),
        Expr::ScalarFunction(call) if call.name() == "get_field" => {
            let (base, names) = call.args.split_first()?;
            let mut path = path(base)?;
            for name in names {
                let Expr::Literal(name, _) = name else { return None };
                path.push('.');
                path.push_str(name.try_as_str()??);
            }
            Some(path)
        }
        _ => None,
    }
}

/// Whether every instant that is written out is a whole number of the units of the columns beside it:
/// the engine's simplification compares in the column's unit, and cuts off what does not fit.
fn in_whole_units(expr: &Expr, schema: &Schema) -> bool {
    let per_second = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000i64,
    };
    let mut unit_nanos = 1i64;
    let mut instants: Vec<i128> = Vec::new();
    let visited = expr.apply(|node| {
        match node {
            Expr::Column(column) => match schema.field_with_name(&column.name).map(Field::data_type) {
                Ok(DataType::Timestamp(unit, _)) => {
                    unit_nanos = unit_nanos.max(1_000_000_000 / per_second(unit));
                }
                Ok(DataType::Date32 | DataType::Date64) => {
                    unit_nanos = unit_nanos.max(86_400_000_000_000);
                }
                _ => {}
            },
            Expr::Literal(ScalarValue::TimestampSecond(Some(v), _), _) => {
                instants.push(i128::from(*v) * 1_000_000_000);
            }
            Expr::Literal(ScalarValue::TimestampMillisecond(Some(v), _), _) => {
                instants.push(i128::from(*v) * 1_000_000);
            }
            Expr::Literal(ScalarValue::TimestampMicrosecond(Some(v), _), _) => {
                instants.push(i128::from(*v) * 1_000);
            }
            Expr::Literal(ScalarValue::TimestampNanosecond(Some(v), _), _) => instants.push(i128::from(*v)),
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    });
    visited.is_ok() && instants.iter().all(|nanos| nanos % i128::from(unit_nanos) == 0)
}

/// Whether every cast of something with a column in it keeps the order of values: the engine replaces
/// the column by its bounds, whatever the cast does.
fn keeps_order(expr: &Expr, schema: &DFSchema) -> bool {
    let mut fine = true;
    let visited = expr.apply(|node| {
        let cast = match node {
            Expr::Cast(cast) => Some((&cast.expr, cast.field.data_type())),
            Expr::TryCast(cast) => Some((&cast.expr, cast.field.data_type())),
            _ => None,
        };
        if let Some((inner, to)) = cast
            && !inner.column_refs().is_empty()
        {
            fine &= inner.get_type(schema).is_ok_and(|from| is_monotone(&from, to));
        }
        Ok(if fine {
            TreeNodeRecursion::Continue
        } else {
            TreeNodeRecursion::Stop
        })
    });
    fine && visited.is_ok()
}

fn is_monotone(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    let zone_free = |t: &DataType| match t {
        T::Timestamp(_, zone) => zone.as_deref().is_none_or(is_utc),
        _ => true,
    };
    let dated = |t: &DataType| matches!(t, T::Date32 | T::Date64 | T::Timestamp(..));
    from == to
        || (from.is_numeric() && to.is_numeric())
        || (from.is_string() && to.is_string())
        || (from.is_binary() && to.is_binary())
        || (dated(from) && dated(to) && zone_free(from) && zone_free(to))
}

/// The engine's view of the containers.
struct Containers<'a> {
    witness: &'a Witness<'a>,
    known: HashMap<&'a str, Known>,
    rows: ArrayRef,
}

impl PruningStatistics for Containers<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.known
            .get(column.name.as_str())
            .map(|known| Arc::clone(&known.min))
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.known
            .get(column.name.as_str())
            .map(|known| Arc::clone(&known.max))
    }

    fn num_containers(&self) -> usize {
        self.rows.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        self.known
            .get(column.name.as_str())
            .map(|known| Arc::new(known.nulls.clone()) as ArrayRef)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::clone(&self.rows))
    }

    /// `false` where the column holds none of the values: by their buckets, and because none of them
    /// lies between the bounds (which serves `IN` lists of any length).
    fn contained(&self, column: &Column, values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        let known = self.known.get(column.name.as_str())?;
        let mut values: Vec<ScalarValue> = values.iter().filter(|v| !v.is_null()).cloned().collect();
        let data_type = known.min.data_type();
        if data_type.is_floating() || values.is_empty() || values.iter().any(|v| v.data_type() != *data_type)
        {
            return None;
        }
        values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
        let buckets = self.witness.excluded_by_buckets(&column.name, &values);
        let outside = outside(&values, known).unwrap_or_else(|_| vec![false; self.rows.len()]);
        let results = outside.into_iter().enumerate().map(|(i, outside)| {
            let excluded = outside || buckets.as_ref().is_some_and(|b| b[i]);
            excluded.then_some(false)
        });
        Some(results.collect())
    }
}

/// Whether none of these values, which are in order, lies between the bounds, container by container.
fn outside(values: &[ScalarValue], known: &Known) -> Result<Vec<bool>> {
    let (min, max) = (&known.min, &known.max);
    let open = |at: usize| min.is_null(at) || max.is_null(at);
    // Which is asked of each of a million files.
    if let [value] = values {
        let value = value.to_scalar()?;
        let (above, below) = (cmp::gt(min, &value)?, cmp::lt(max, &value)?);
        return Ok((0..min.len())
            .map(|at| !open(at) && (above.value(at) || below.value(at)))
            .collect());
    }
    let mut outside = vec![false; min.len()];
    for (at, outside) in outside.iter_mut().enumerate().filter(|(at, _)| !open(*at)) {
        let (min, max) = (
            ScalarValue::try_from_array(min, at)?,
            ScalarValue::try_from_array(max, at)?,
        );
        let first = values.partition_point(|value| *value < min);
        *outside = values.get(first).is_none_or(|value| *value > max);
    }
    Ok(outside)
}
