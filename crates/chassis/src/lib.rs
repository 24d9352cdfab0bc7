//! Consume, inbox, rule, rows and outbox, commit, offset; relay; workers; HTTP shell.
