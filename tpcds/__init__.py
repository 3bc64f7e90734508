"""tpcds."""
