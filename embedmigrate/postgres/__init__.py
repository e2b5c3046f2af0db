"""PostgreSQL with pgvector: what the catalog says, every statement, reading and writing."""
