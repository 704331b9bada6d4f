//! The engine: takes a warrant and a statement, gives a stream of rows. In order: admission, statement gate,
//! plan, plan walk, intent in the log, rows. Nothing can be asked without a warrant: it is an argument, and
//! only `query_consents` makes one.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::disk_manager::DiskManager;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SQLOptions;
use parking_lot::Mutex;
use query_audit::Audit;
use query_consents::{Consents, Warrant};
use schemas_consent::Resolution;
use schemas_identity::Did;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use crate::bounded::bounded;
use crate::catalog;
use crate::counts::Counts;
use crate::error::EngineError;
use crate::files::Footers;
use crate::forms;
use crate::functions::Functions;
use crate::gate;
use crate::mask::Masks;
use crate::memory::Share;
use crate::numbered::numbered;
use crate::record::Request;
use crate::rollup;
use crate::running::{Driver, Running};
use crate::scan::{Access, Reach, Readings, Shared};
use crate::session::World;
use crate::shown;
use crate::spill::{Disk, Spill};
use crate::tables::{Tables, TablesError, View};
use crate::threads::Threads;
use crate::turns::Turns;
use crate::walk;

/// Queries running at once unless set otherwise.
const QUERIES_MAX: usize = 128;
/// Most threads that evaluate queries.
const THREADS_MAX: usize = 64;
/// Batches between the plan and the reader of the result.
const BATCHES_WAITING: usize = 2;

/// How often polling clients whose window is over get their completion.
const END_POLLS_EVERY: Duration = Duration::from_secs(1);

/// Tells the present, microseconds since 1970 UTC.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Bounds of the engine. Each is enforced per query unless it says otherwise.
#[derive(Clone)]
pub struct Options {
    /// Queries running at once, of everybody.
    pub queries_max: usize,
    /// Queries running at once, of one principal.
    pub queries_per_principal_max: usize,
    /// Longest time from start to the last row taken.
    pub time_max: Duration,
    /// Working memory of one query, bytes.
    pub memory_bytes_max: usize,
    /// Working memory of all queries together, bytes.
    pub memory_total_bytes_max: usize,
    /// Disk for what is larger; `None` = it is refused.
    pub spill: Option<Spill>,
    /// Rows of a result.
    pub rows_max: u64,
    /// Bytes of a result in memory form.
    pub bytes_max: u64,
    /// Parallel partitions.
    pub partitions: usize,
    /// Threads that evaluate queries, for all of them together. Many more than cores: where one principal's queries
    /// keep threads busy, the operating system still shares the cores out among all.
    pub threads: usize,
    /// The present.
    pub clock: Clock,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("queries_max", &self.queries_max)
            .field("time_max", &self.time_max)
            .field("memory_bytes_max", &self.memory_bytes_max)
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        let cores = cores();
        Self {
            queries_max: QUERIES_MAX,
            queries_per_principal_max: 8,
            time_max: Duration::from_secs(120),
            memory_bytes_max: 256 * 1024 * 1024,
            memory_total_bytes_max: 1024 * 1024 * 1024,
            spill: None,
            rows_max: 100_000_000,
            bytes_max: 16 * 1024 * 1024 * 1024,
            partitions: cores.min(8),
            threads: (QUERIES_MAX * cores.min(8)).min(THREADS_MAX),
            clock: Arc::new(system_clock),
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

fn system_clock() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// What a request may choose.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    /// Log size to read at; `None` = now, with the live tail. Consent is today's in either case.
    pub as_of: Option<u64>,
}

/// The one way from SQL to rows.
pub struct Engine {
    options: Options,
    tables: Arc<dyn Tables>,
    consents: Arc<Consents>,
    audit: Arc<Audit>,
    functions: Functions,
    footers: Arc<Footers>,
    masks: Arc<Masks>,
    turns: Arc<Turns>,
    memory: Arc<GreedyMemoryPool>,
    disk: Disk,
    admission: Admission,
    threads: Threads,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.audit.end_all_polls();
    }
}

impl Engine {
    /// An engine over a store. Starts its own threads, so that a query cannot starve the doors.
    ///
    /// # Errors
    /// `Internal` if threads cannot be started or the disk for large queries cannot be used.
    pub fn new(
        options: Options,
        tables: Arc<dyn Tables>,
        consents: Arc<Consents>,
        audit: Arc<Audit>,
    ) -> Result<Self, EngineError> {
        // A plan that is made keeps its permit.
        let threads = Threads::start(options.threads, options.queries_max)
            .map_err(|error| EngineError::Internal(error.to_string()))?;
        let admission = Admission::new(&options);
        let memory = Arc::new(GreedyMemoryPool::new(options.memory_total_bytes_max));
        let disk = Disk::open(options.spill.as_ref())?;
        threads.evaluating().spawn(end_polls(Arc::downgrade(&audit), Arc::clone(&options.clock)));
        Ok(Self {
            options,
            tables,
            consents,
            audit,
            functions: Functions::allowed(),
            footers: Arc::default(),
            masks: Arc::default(),
            turns: Turns::new(cores()),
            memory,
            disk,
            admission,
            threads,
        })
    }

    /// As [`Engine::run`], for a client that says it will ask the same again soon: consent is decided anew each time, and
    /// repeats within 15 minutes may share one audit record (`query_audit::polling`).
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub async fn poll(&self, warrant: Warrant, sql: &str) -> Result<Running, EngineError> {
        self.start(warrant, sql, RunOptions::default(), true).await
    }

    /// Runs one statement under a warrant.
    ///
    /// # Errors
    /// Everything up to the first row: refusals of the gate, of planning, of the audit log, and overload.
    /// What goes wrong later ends the stream with an error.
    pub async fn run(
        &self,
        warrant: Warrant,
        sql: &str,
        options: RunOptions,
    ) -> Result<Running, EngineError> {
        self.start(warrant, sql, options, false).await
    }

    async fn start(
        &self,
        warrant: Warrant,
        sql: &str,
        options: RunOptions,
        polls: bool,
    ) -> Result<Running, EngineError> {
        let deadline = Instant::now() + self.options.time_max;
        let request = Request::new(warrant, sql, (self.options.clock)(), options.as_of.is_some())?;
        let (planned, permit) = match self.plan(&request, options, deadline).await {
            Ok(planned) => planned,
            Err(refusal) => {
                request.refuse(&self.audit, &refusal).await;
                return Err(refusal);
            }
        };
        let receipt = request.intend(&self.audit, &planned.access, polls).await?;
        let (sender, receiver) = mpsc::channel(BATCHES_WAITING);
        let schema = Arc::clone(&planned.schema);
        let running = Running::new(request.id.clone(), Arc::clone(&planned.access), schema, receiver);
        let driver = Driver {
            plan: planned.plan,
            context: planned.context,
            access: planned.access,
            audit: Arc::clone(&self.audit),
            receipt,
            sender,
            deadline,
            rows_max: self.options.rows_max,
            bytes_max: self.options.bytes_max,
            request,
        };
        self.threads.evaluating().spawn(async move {
            driver.run().await;
            drop(permit);
        });
        Ok(running)
    }

    /// Gate and planner, on a thread with a deep stack. The permit stays with the plan, so one that outlives its deadline
    /// still counts.
    async fn plan(
        &self,
        request: &Request,
        options: RunOptions,
        deadline: Instant,
    ) -> Result<(Planned, Permit), EngineError> {
        let warrant = &request.warrant;
        let permit = self.admission.enter(warrant.principal())?;
        let view = self.tables.view(options.as_of).map_err(|error| match error {
            TablesError::NoSnapshot(size) => EngineError::NoSnapshot(size),
            TablesError::Unavailable(detail) => EngineError::Internal(detail),
        })?;
        let job = PlanJob {
            warrant: Arc::clone(warrant),
            view,
            sql: request.sql.clone(),
            functions: self.functions.clone(),
            footers: Arc::clone(&self.footers),
            masks: Arc::clone(&self.masks),
            turns: Arc::clone(&self.turns),
            consents: Arc::clone(&self.consents),
            now_us: request.now_us,
            clock: Arc::clone(&self.options.clock),
            deadline: deadline.into_std(),
            partitions: self.options.partitions,
            memory: Share::new(self.options.memory_bytes_max, &self.memory),
            disk: self.disk.of_query(),
        };
        let evaluating = self.threads.evaluating().clone();
        let planned = self
            .threads
            .planning()
            .spawn_blocking(move || evaluating.block_on(job.plan()).map(|planned| (planned, permit)));
        match tokio::time::timeout_at(deadline, planned).await {
            Ok(Ok(planned)) => planned,
            Ok(Err(_)) => {
                Err(EngineError::Internal("the planner panicked, or ended without a plan".to_owned()))
            }
            Err(_) => Err(EngineError::Timeout),
        }
    }
}

/// Writes the completions of polling clients whose time is over or whose permission has changed, for as long as there is
/// an audit.
async fn end_polls(audit: Weak<Audit>, clock: Clock) {
    loop {
        tokio::time::sleep(END_POLLS_EVERY).await;
        let Some(audit) = audit.upgrade() else { return };
        let now_us = clock();
        // The disk is waited for on a thread that may block. A panic there is that thread's end, not this task's.
        let _ = tokio::task::spawn_blocking(move || audit.end_polls(now_us)).await;
    }
}

/// A plan ready to run.
pub(crate) struct Planned {
    pub plan: Arc<dyn ExecutionPlan>,
    pub context: Arc<TaskContext>,
    pub schema: SchemaRef,
    pub access: Arc<Access>,
}

struct PlanJob {
    warrant: Arc<Warrant>,
    view: Arc<View>,
    sql: String,
    functions: Functions,
    footers: Arc<Footers>,
    masks: Arc<Masks>,
    turns: Arc<Turns>,
    consents: Arc<Consents>,
    now_us: i64,
    clock: Clock,
    deadline: std::time::Instant,
    partitions: usize,
    memory: Share,
    disk: Arc<DiskManager>,
}

impl PlanJob {
    async fn plan(self) -> Result<Planned, EngineError> {
        let admitted = gate::admit(&self.sql)?;
        let small = self.small(&admitted.relations)?;
        // A plan that is only looked at is made over no rows at all: what it shows cannot depend on anybody's.
        let view = if admitted.is_explain { Arc::new(View::nothing(&self.view)) } else { self.view };
        let shared = Arc::new(Shared {
            view,
            footers: self.footers,
            counts: Arc::new(Counts::default()),
            cut: AtomicBool::new(false),
            clock: self.clock,
            deadline: self.deadline,
            gone: AtomicBool::new(false),
            turns: self.turns,
            spent: Arc::default(),
        });
        let (tables, reaches) =
            tables(&self.warrant, &shared, &self.masks, &admitted.relations).map_err(plan_error)?;
        // Nobody is read by looking at a plan.
        let reaches = if admitted.is_explain { Vec::new() } else { reaches };
        let access = Arc::new(Access { shared, reaches });
        let (partitions, memory, disk) = (self.partitions, self.memory, self.disk);
        let world = World { public: tables, small, partitions, memory, disk, deadline: self.deadline };
        let state =
            world.session(&self.functions).map_err(|error| EngineError::Internal(error.to_string()))?;
        let logical = state.statement_to_plan(admitted.statement).await.map_err(plan_error)?;
        SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false)
            .verify_plan(&logical)
            .map_err(|_| EngineError::ReadOnly("refused by the planner's own options"))?;
        forms::check(&logical)?;
        let plan = state.create_physical_plan(&logical).await.map_err(plan_error)?;
        walk::check(&plan)?;
        let plan = numbered(plan).map_err(plan_error)?;
        let plan = match admitted.is_explain {
            true => shown::as_rows(&plan).map_err(plan_error)?,
            false => bounded(plan, &access).map_err(plan_error)?,
        };
        Ok(Planned { schema: plan.schema(), plan, context: state.task_ctx(), access })
    }
}

/// Small tables: schema, name, rows.
type Small = Vec<(&'static str, &'static str, RecordBatch)>;

impl PlanJob {
    /// The small tables that a statement names; to count grants costs as much as there are people.
    fn small(&self, relations: &BTreeSet<String>) -> Result<Small, EngineError> {
        let (principal, vouched) = (self.warrant.principal(), self.warrant.vouched());
        let mut small: Small = Vec::new();
        let mut add = |schema, name, make: &dyn Fn() -> Result<RecordBatch, ArrowError>| {
            if relations.contains(name) {
                small.push((schema, name, make().map_err(|error| EngineError::Internal(error.to_string()))?));
            }
            Ok(())
        };
        add("catalog", "signals", &catalog::signals)?;
        add("catalog", "studies", &|| {
            catalog::studies(&self.consents.catalog_studies(principal, vouched, self.now_us))
        })?;
        add("catalog", "grants", &|| {
            catalog::grants(&self.consents.catalog_grants(principal, vouched, self.now_us))
        })?;
        add("consent", "explain", &|| catalog::reasons(&self.warrant.explain()))?;
        Ok(small)
    }
}

type Guarded = Vec<(&'static str, Arc<dyn TableProvider>)>;

/// The tables a statement names, each guarded by a warrant of its own resolution.
fn tables(
    warrant: &Arc<Warrant>,
    shared: &Arc<Shared>,
    masks: &Masks,
    relations: &BTreeSet<String>,
) -> datafusion::common::Result<(Guarded, Vec<Arc<Reach>>)> {
    let mut tables: Guarded = Vec::new();
    let mut reaches = Vec::new();
    for (name, resolution) in [
        ("readings", Resolution::Raw),
        ("readings_1m", Resolution::Minute),
        ("readings_1h", Resolution::Hour),
    ] {
        if !relations.contains(name) {
            continue;
        }
        let warrant = match resolution {
            Resolution::Raw => Arc::clone(warrant),
            coarser => Arc::new(warrant.for_use(warrant.request().use_, coarser)),
        };
        let reach = Arc::new(Reach::new(warrant, Arc::clone(shared), masks));
        let readings: Arc<dyn TableProvider> = Arc::new(Readings::new(Arc::clone(&reach)));
        tables.push((name, rollup::at(resolution, readings)?));
        reaches.push(reach);
    }
    Ok((tables, reaches))
}

/// Sorts what the planner says into the public classes.
fn plan_error(error: DataFusionError) -> EngineError {
    let detail = error.strip_backtrace();
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => EngineError::OverBudget(crate::error::Budget::Memory),
        DataFusionError::ArrowError(..) | DataFusionError::Execution(_) => EngineError::Evaluation(detail),
        DataFusionError::External(_) | DataFusionError::IoError(_) | DataFusionError::Internal(_) => {
            EngineError::Internal(detail)
        }
        DataFusionError::NotImplemented(_) => EngineError::Unsupported("not implemented by the planner"),
        _ => EngineError::Plan(detail),
    }
}

/// Who is running how many queries.
struct Admission {
    all: Arc<Semaphore>,
    per_principal_max: usize,
    running: Arc<Mutex<HashMap<Did, usize>>>,
}

/// The right to run one query; given back when dropped.
pub(crate) struct Permit {
    _all: OwnedSemaphorePermit,
    principal: Did,
    running: Arc<Mutex<HashMap<Did, usize>>>,
}

impl Admission {
    fn new(options: &Options) -> Self {
        Self {
            all: Arc::new(Semaphore::new(options.queries_max)),
            per_principal_max: options.queries_per_principal_max,
            running: Arc::default(),
        }
    }

    fn enter(&self, principal: &Did) -> Result<Permit, EngineError> {
        let all = Arc::clone(&self.all).try_acquire_owned().map_err(|_| EngineError::Busy)?;
        let mut running = self.running.lock();
        let count = running.entry(*principal).or_insert(0);
        if *count >= self.per_principal_max {
            return Err(EngineError::Busy);
        }
        *count += 1;
        Ok(Permit { _all: all, principal: *principal, running: Arc::clone(&self.running) })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        if let Some(count) = running.get_mut(&self.principal) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                running.remove(&self.principal);
            }
        }
    }
}
