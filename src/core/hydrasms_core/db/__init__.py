"""The database: engines, transactions, dialects and the writer."""
