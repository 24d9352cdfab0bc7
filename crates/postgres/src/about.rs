//! Who the server is and what we may do there. Never changes anything.

use ports::{Fault, Outcome};

use crate::pool::Lease;

/// A PostgreSQL server, seen from a service's schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The server's version, such as `15.17`.
    pub version: String,
    /// Whether we may create a schema in this database.
    pub may_create: bool,
    /// Tables of the schema that we may not read and write.
    pub barred: Vec<String>,
}

impl About {
    pub(crate) async fn ask(lease: &Lease, schema: &str) -> Outcome<About> {
        // What the server is built for follows its version: "15.17 (Debian 15.17-0+deb12u1)".
        let sql = format!(
            "SELECT split_part(current_setting('server_version'), ' ', 1), \
             has_database_privilege(current_database(), 'CREATE')::text, \
             (SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class \
             WHERE relnamespace = to_regnamespace('{schema}') AND relkind IN ('r', 'p') \
             AND relname <> 'schema_version' AND NOT (has_schema_privilege(relnamespace, 'USAGE') \
             AND has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT') \
             AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE')))"
        );
        let mut rows = lease.ask(&sql).await?;
        let row = rows.pop().unwrap_or_default();
        let [Some(version), Some(may_create), barred] = &row[..] else {
            return Err(Fault::retry("the server does not say who it is"));
        };
        let barred = barred.as_deref().unwrap_or_default();
        Ok(About {
            version: version.clone(),
            may_create: may_create == "true",
            barred: barred.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        })
    }
}
