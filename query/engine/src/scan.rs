//! The opaque leaf of every plan: `ConsentScan`. It has no children, no statistics, no metrics and nothing to
//! print but its name; no filter, limit or sort is ever moved below it. Planner and evaluator see only rows
//! the warrant allows.
//!
//! Not a filter node: in DataFusion 55 a filter above a raw scan evaluates the user's expression on hidden
//! rows too, and its errors, EXPLAIN and statistics told their values.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use arrow::array::{RecordBatch, StringViewArray};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::stream;
use parking_lot::Mutex;
use query_audit::Scope;
use query_consents::Warrant;
use schemas_identity::ShortId;
use schemas_signals::columns::readings_schema;

use crate::columns::{Column, Labels};
use crate::counts::Counts;
use crate::engine::Clock;
use crate::files::{self, Footers};
use crate::mask::{Mask, Masks, Narrow, Part};
use crate::narrow::Names;
use crate::origins::OriginFiles;
use crate::reader::{PartitionReader, Shape, Share, Step, Unit};
use crate::tables::{DeviceNames, FileKind, View};
use crate::turns::{Spent, Turns};

/// Name of the leaf, and all that is ever printed of it.
pub(crate) const SCAN_NAME: &str = "ConsentScan";

/// What all tables of one request share.
pub(crate) struct Shared {
    /// The snapshot read.
    pub view: Arc<View>,
    /// Footers read before.
    pub footers: Arc<Footers>,
    /// Rows released per person.
    pub counts: Arc<Counts>,
    /// Set once a consent change has cut the request off; never cleared.
    pub cut: AtomicBool,
    /// The present, microseconds UTC: consent ends by time, too.
    pub clock: Clock,
    /// When the query must have ended.
    pub deadline: Instant,
    /// Set once nobody waits for the rows any more.
    pub gone: AtomicBool,
    /// Where its scans stand in line.
    pub turns: Arc<Turns>,
    /// How long they have read so far.
    pub spent: Arc<Spent>,
}

impl Shared {
    /// Whether anybody still waits for the rows.
    ///
    /// # Errors
    /// If the time is over or the reader has gone.
    fn is_wanted(&self) -> Result<()> {
        if self.gone.load(Ordering::Relaxed) || Instant::now() >= self.deadline {
            return Err(DataFusionError::Execution("no longer wanted".to_owned()));
        }
        Ok(())
    }
}

/// What one request may read at one resolution.
pub(crate) struct Reach {
    /// The permission; nothing is read without one.
    pub warrant: Arc<Warrant>,
    /// Its spans, compiled.
    pub mask: Arc<Mask>,
    /// How it names devices: in a study otherwise than elsewhere.
    pub devices: DeviceNames,
    /// What it shares with the request's other tables.
    pub shared: Arc<Shared>,
    /// Set once a plan reads through it.
    pub used: AtomicBool,
    /// What its scans may read, each by rising identity.
    pub planned: Mutex<Vec<Arc<[Scope]>>>,
}

impl Reach {
    /// A reach for a warrant.
    pub(crate) fn new(warrant: Arc<Warrant>, shared: Arc<Shared>, masks: &Masks) -> Self {
        let mask = masks.of(warrant.basis());
        let (names, namer) = (Arc::clone(&shared.view.devices), Arc::clone(&warrant));
        let devices: DeviceNames = Arc::new(move |number| names(number).map(|id| namer.device(id)));
        Self { warrant, mask, devices, shared, used: AtomicBool::new(false), planned: Mutex::default() }
    }

    /// The number of a device by the name that this request has for it.
    pub(crate) fn number(&self, name: ShortId) -> Option<u32> {
        match self.warrant.study() {
            None => (self.shared.view.numbers)(name).map(|number| number.0),
            // A study's names cannot be turned back, only made.
            Some(_) => self.mask.number(name, &self.devices),
        }
    }

    /// False once a person of the warrant has changed their mind, or a grant or the token ran out.
    pub(crate) fn holds(&self) -> bool {
        if self.shared.cut.load(Ordering::SeqCst) {
            return false;
        }
        if self.warrant.is_current_at((self.shared.clock)()) {
            return true;
        }
        self.shared.cut.store(true, Ordering::SeqCst);
        false
    }
}

/// Everything one request may read.
pub(crate) struct Access {
    /// What its tables share.
    pub shared: Arc<Shared>,
    /// One per resolution asked for.
    pub reaches: Vec<Arc<Reach>>,
}

impl Access {
    /// False once any permission the plan reads through has ended.
    pub(crate) fn holds(&self) -> bool {
        let mut used = self.reaches.iter().filter(|reach| reach.used.load(Ordering::SeqCst));
        used.all(|reach| reach.holds())
    }

    /// For operators that work long: whether to go on at all.
    ///
    /// # Errors
    /// If consent ended, the time is over or the reader has gone. What kind of end it is, the driver sees for itself.
    pub(crate) fn go_on(&self) -> Result<()> {
        if !self.holds() {
            return Err(consent_changed());
        }
        self.shared.is_wanted()
    }

    /// Of whom what the plan may read, for the record that comes before the first row.
    pub(crate) fn scope(&self) -> Arc<[Scope]> {
        let planned: Vec<Arc<[Scope]>> =
            self.reaches.iter().flat_map(|reach| reach.planned.lock().clone()).collect();
        if let [only] = planned.as_slice() {
            return Arc::clone(only);
        }
        let mut scopes: Vec<Scope> = planned.iter().flat_map(|scopes| scopes.iter().copied()).collect();
        scopes.sort_unstable_by_key(|scope| scope.subject);
        scopes.dedup_by(|next, whole| {
            let is_same = next.subject == whole.subject;
            if is_same {
                whole.widen(next);
            }
            is_same
        });
        scopes.into()
    }
}

/// The table `readings`, as far as one warrant allows it.
pub(crate) struct Readings {
    reach: Arc<Reach>,
}

impl Readings {
    /// The guarded table of one request.
    pub(crate) fn new(reach: Arc<Reach>) -> Self {
        Self { reach }
    }

    fn names(&self) -> Names<'_> {
        Names { reach: &self.reach }
    }

    fn narrow(&self, filters: &[Expr]) -> Narrow {
        let names = self.names();
        filters.iter().filter_map(|filter| names.narrow(filter)).fold(Narrow::default(), Narrow::and)
    }

    /// What each part of a mask reads: of files in their order, then of rows that are in no file yet.
    fn shares(&self, parts: Vec<Part>) -> Result<Vec<Share>> {
        let shared = &self.reach.shared;
        let mut shares: Vec<Share> =
            parts.into_iter().map(|part| Share { part, units: Vec::new() }).collect();
        for file in &shared.view.files {
            let is_near = |share: &&mut Share| files::may_show(file, &share.part);
            let mut near = shares.iter_mut().filter(is_near).peekable();
            if near.peek().is_none() {
                continue;
            }
            // Its footer is not held longer than this unless a piece is read.
            let open =
                shared.footers.open(file).map_err(|error| DataFusionError::External(Box::new(error)))?;
            near.for_each(|share| {
                share.units.extend(files::pieces(&open, &share.part).into_iter().map(Unit::Piece));
            });
        }
        shares
            .iter_mut()
            .filter(|share| !share.part.is_empty())
            .for_each(|share| share.units.extend(self.tail()));
        Ok(shares)
    }

    /// The rows that are in no file yet, in the order of arrival.
    fn tail(&self) -> impl Iterator<Item = Unit> {
        let view = &self.reach.shared.view;
        let scalar = view.tail_scalar.iter().map(|batch| Unit::Tail(FileKind::Scalar, batch.clone()));
        scalar.chain(view.tail_wave.iter().map(|batch| Unit::Tail(FileKind::Wave, batch.clone())))
    }
}

impl fmt::Debug for Readings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Readings")
    }
}

#[async_trait]
impl TableProvider for Readings {
    fn schema(&self) -> SchemaRef {
        readings_schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let names = self.names();
        Ok(filters
            .iter()
            .map(|filter| match names.narrow(filter) {
                Some(_) if names.is_exact(filter) => TableProviderFilterPushDown::Exact,
                Some(_) => TableProviderFilterPushDown::Inexact,
                None => TableProviderFilterPushDown::Unsupported,
            })
            .collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.reach.used.store(true, Ordering::SeqCst);
        let full = readings_schema();
        let schema = match projection {
            Some(indices) => Arc::new(full.project(indices)?),
            None => full,
        };
        let mut columns = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            match Column::named(field.name()) {
                Some(column) => columns.push(column),
                None => return plan_err!("no such column"),
            }
        }
        let narrow = self.narrow(filters);
        let mask = match narrow == Narrow::default() {
            true => Arc::clone(&self.reach.mask),
            false => Arc::new(self.reach.mask.narrowed(&narrow)),
        };
        self.reach.planned.lock().push(mask.scopes());
        let shares = self.shares(Part::of(&mask, state.config().target_partitions()))?;
        let labels = Labels::new(&mask, &columns, &self.reach.warrant, &self.reach.devices);
        let shape = Shape {
            tally: self.reach.shared.counts.tally(mask.people()),
            labels: Arc::new(labels),
            schema,
            columns,
            origins: OriginFiles::default(),
        };
        Ok(Arc::new(ConsentScan::new(Arc::clone(&self.reach), Arc::new(shape), shares)))
    }
}

/// The physical leaf; see the file's head.
pub(crate) struct ConsentScan {
    reach: Arc<Reach>,
    shape: Arc<Shape>,
    shares: Vec<Share>,
    properties: Arc<PlanProperties>,
}

impl ConsentScan {
    fn new(reach: Arc<Reach>, shape: Arc<Shape>, shares: Vec<Share>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&shape.schema)),
            Partitioning::UnknownPartitioning(shares.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Self { reach, shape, shares, properties: Arc::new(properties) }
    }

    /// The names of one of its columns, if that is what it gives there.
    pub(crate) fn names(&self, column: usize) -> Option<&StringViewArray> {
        match self.shape.columns.get(column) {
            Some(Column::Name(label)) => Some(self.shape.labels.names(*label)),
            _ => None,
        }
    }

    /// The same scan with the names' numbers in these columns.
    pub(crate) fn numbered(&self, columns: &[usize]) -> Self {
        let shape = self.shape.numbered(columns);
        Self::new(Arc::clone(&self.reach), Arc::new(shape), self.shares.clone())
    }
}

impl fmt::Debug for ConsentScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCAN_NAME)
    }
}

impl DisplayAs for ConsentScan {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCAN_NAME)
    }
}

impl ExecutionPlan for ConsentScan {
    fn name(&self) -> &str {
        SCAN_NAME
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn handle_child_pushdown_result(
        &self,
        _phase: FilterPushdownPhase,
        result: ChildPushdownResult,
        _config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        Ok(FilterPushdownPropagation::all_unsupported(result))
    }

    fn execute(&self, partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(share) = self.shares.get(partition) else {
            return plan_err!("no such partition");
        };
        let reader = PartitionReader::new(Arc::clone(&self.shape), share.clone());
        let schema = Arc::clone(&self.shape.schema);
        let start = Some((Arc::clone(&self.reach), reader));
        let batches = stream::unfold(start, |state| async move {
            let (reach, reader) = state?;
            match pull(Arc::clone(&reach), reader).await {
                Ok(Some((batch, reader))) => Some((Ok(batch), Some((reach, reader)))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}

/// The next batch, read on a blocking thread; nothing runs on when the stream is dropped. Consent is looked
/// at after the rows were read and before they are handed on.
async fn pull(
    reach: Arc<Reach>,
    mut reader: PartitionReader,
) -> Result<Option<(RecordBatch, PartitionReader)>> {
    loop {
        if !reach.holds() {
            return Err(consent_changed());
        }
        let shared = &reach.shared;
        // Steps run without a pause while turns are free: whoever stops the query from outside may not get a word in.
        shared.is_wanted()?;
        let step = move || {
            let step = reader.step();
            (step, reader)
        };
        let Some((step, back)) = shared.turns.run(&shared.spent, step).await else {
            return Err(DataFusionError::Internal("a step of a scan ended without a word".to_owned()));
        };
        reader = back;
        let step = step.map_err(|error| DataFusionError::External(Box::new(error)))?;
        if !reach.holds() {
            return Err(consent_changed());
        }
        match step {
            Step::Batch(batch) => return Ok(Some((batch, reader))),
            Step::Nothing => {}
            Step::End => return Ok(None),
        }
    }
}

fn consent_changed() -> DataFusionError {
    DataFusionError::Execution("consent changed".to_owned())
}
