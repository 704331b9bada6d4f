//! The planner's world for one request: only the guarded tables, only the listed functions, no files, no
//! object stores, no settings to read or change. Made fresh for each request and dropped with it.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemTable, MemoryCatalogProvider, MemoryCatalogProviderList,
    MemorySchemaProvider, SchemaProvider, TableProvider,
};
use datafusion::common::Result;
use datafusion::execution::SessionState;
use datafusion::execution::disk_manager::DiskManager;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::SessionConfig;

use crate::functions::Functions;
use crate::memory::Share;
use crate::planner;
use crate::reader::BATCH_ROWS_MAX;
use crate::rules;

/// Catalogue and default schema as SQL names them.
const CATALOG: &str = "vitalog";
const PUBLIC: &str = "public";

/// Everything a session holds.
pub(crate) struct World {
    /// Guarded tables of the default schema.
    pub public: Vec<(&'static str, Arc<dyn TableProvider>)>,
    /// Small tables held in memory: schema, name, rows.
    pub small: Vec<(&'static str, &'static str, RecordBatch)>,
    /// Parallelism of one query.
    pub partitions: usize,
    /// Working memory.
    pub memory: Share,
    /// Where sorts and groupings go that are larger.
    pub disk: Arc<DiskManager>,
    /// When planning is given up.
    pub deadline: Instant,
}

impl World {
    /// A session holding this and nothing else.
    pub(crate) fn session(self, functions: &Functions) -> Result<SessionState> {
        let mut config = SessionConfig::new()
            .with_information_schema(false)
            .with_create_default_catalog_and_schema(false)
            .with_default_catalog_and_schema(CATALOG, PUBLIC)
            .with_batch_size(BATCH_ROWS_MAX)
            .with_target_partitions(self.partitions.max(1));
        config.options_mut().execution.collect_statistics = false;
        // There are no statistics to swap the sides of a join by.
        config.options_mut().optimizer.join_reordering = false;
        let catalogs = catalogs(self.public, self.small)?;
        let builder = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime(self.memory, self.disk)?)
            .with_catalog_list(catalogs);
        Ok(planner::install(rules::install(functions.install(builder), self.deadline)).build())
    }
}

/// The names SQL may use.
fn catalogs(
    guarded: Vec<(&'static str, Arc<dyn TableProvider>)>,
    small: Vec<(&'static str, &'static str, RecordBatch)>,
) -> Result<Arc<dyn CatalogProviderList>> {
    let public = MemorySchemaProvider::new();
    for (name, table) in guarded {
        public.register_table(name.to_owned(), table)?;
    }
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema(PUBLIC, Arc::new(public))?;
    for (schema, name, rows) in small {
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]])?;
        let tables = match catalog.schema(schema) {
            Some(tables) => tables,
            None => {
                let tables: Arc<dyn SchemaProvider> = Arc::new(MemorySchemaProvider::new());
                catalog.register_schema(schema, Arc::clone(&tables))?;
                tables
            }
        };
        tables.register_table(name.to_owned(), Arc::new(table))?;
    }
    let list = MemoryCatalogProviderList::new();
    list.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
    Ok(Arc::new(list))
}

/// Bounded memory and disk, no object store (the default would know the local file system).
fn runtime(memory: Share, disk: Arc<DiskManager>) -> Result<Arc<RuntimeEnv>> {
    let mut builder = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(memory));
    builder.disk_manager = Some(disk);
    let runtime = builder.build_arc()?;
    runtime.deregister_object_store(ObjectStoreUrl::local_filesystem().as_ref())?;
    Ok(runtime)
}
