//! Store on PostgreSQL with pipelined transactions.
